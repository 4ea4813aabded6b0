//! Faults: one disk of three fails at one of its requests during a cycle; the neighbour on another
//! disk must not notice.

use super::cycle::{self, CycleResult};
use super::disk::{FaultKind, FaultPlan};
use super::{image, is_long, seed};

const DISKS: u8 = 3;
const KINDS: [FaultKind; 4] =
    [FaultKind::ErrorOnce, FaultKind::ErrorForGood, FaultKind::NoAnswer, FaultKind::LateAnswer];

/// Checks a cycle with a fault against the requirements of every cycle.
fn check(result: &CycleResult, plan: FaultPlan, plain: &CycleResult) {
    let what = |message: &str| format!("{plan:?}: {message}; told: {:#?}", result.machine.told);
    for disk in &result.machine.disks {
        let content = disk.state().content.clone();
        if let Err(wrong) = image::check(&content, &result.truth) {
            panic!("{}", what(&wrong));
        }
    }
    // The neighbour's pages were right at each step, or the step would have panicked. It must also
    // have made progress.
    let (pace, before) = (result.neighbour.steps * 1000 / result.turns.max(1), plain.pace);
    assert!(
        pace * 10 >= before * 8,
        "{}",
        what(&format!("the neighbour does {pace} steps in 1000 turns, {before} without a fault"))
    );
    assert!(result.neighbour.losses.is_empty(), "{}", what("the neighbour lost a page"));
    let told = ["Error", "DumpFailed", "Crash"].iter().any(|name| result.machine.has_told(name));
    assert!(told, "{}", what("no event tells of the fault"));
    // A single error must not end an incarnation.
    if plan.kind == FaultKind::ErrorOnce {
        assert!(result.guest.losses.is_empty(), "{}", what("the guest lost a page by one error"));
    }
}

#[test]
fn a_fault_at_any_request_of_one_disk_harms_no_neighbour_and_has_its_event() {
    let seed = seed();
    let plain = cycle::run(DISKS, seed, None, false);
    let requests = plain.machine.disks[0].state().requests;
    assert!(requests > 100, "a cycle has many requests: {requests}");
    let stride = if is_long() { 1 } else { requests / 3 };
    let mut runs = 0;
    for request in (0..requests).step_by(stride as usize) {
        for kind in KINDS {
            let plan = FaultPlan { request, kind };
            let result = cycle::run(DISKS, seed, Some(plan), false);
            check(&result, plan, &plain);
            runs += 1;
        }
    }
    println!("{runs} runs over {requests} requests");
}
