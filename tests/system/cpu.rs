//! The CPU as the guest sees it, where the hypervisor takes part in its behaviour.

use anyhow::{Context, Result, ensure};
use boot::bed::Bed;
use std::time::Duration;
use tests::Case;
use tests::scenario::Scenario;

const LIMIT: Duration = Duration::from_secs(240);

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "the_cpu_is_as_the_manuals_say",
        beds: &[Bed::Qemu, Bed::Bochs, Bed::Kvm, Bed::Nested],
        needs: &[],
        run: the_cpu_is_as_the_manuals_say,
    },
    Case {
        name: "a_task_switch_ends_with_its_reason",
        beds: &[Bed::Qemu, Bed::Bochs, Bed::Kvm, Bed::Nested],
        needs: &[],
        run: a_task_switch_ends_with_its_reason,
    },
];

/// With nested guests Bochs 2.7 keeps NMIs blocked from one guest to the next (docs/testing.md):
/// the second round would never end.
fn arguments(bed: Bed) -> &'static str {
    match bed {
        Bed::Nested => "exotic=1 nmi_rounds=1",
        Bed::Qemu | Bed::Bochs | Bed::Kvm => "exotic=1",
    }
}

/// The kernel makes all checks in one start. Finally it accesses an empty address with an
/// instruction that is not emulated.
fn the_cpu_is_as_the_manuals_say(bed: Bed) -> Result<()> {
    let scenario = Scenario {
        at_end: "stay",
        partition: "dump = \"off\"\nrestart = \"never\"",
        ..Scenario::new("cpu", arguments(bed))
    };
    let mut started = scenario.start(bed, &format!("{}-cpu", bed.name()))?;
    let crash =
        started.running.events.wait_for(LIMIT, "the crash at the end, or a failure", |event| {
            event.name() == "crash" || event.name() == "guest" && event.0["kind"] == "fail"
        })?;
    let texts = started.running.events.all().iter().filter_map(|event| event.0["text"].as_str());
    let wrong: Vec<_> =
        texts.filter(|text| text.starts_with("WRONG") || text.contains(" does not hold")).collect();
    ensure!(
        crash.name() == "crash" && wrong.is_empty(),
        "{}: {wrong:#?}; {}",
        crash.0,
        started.place()
    );
    ensure!(
        crash.text("reason")? == "instruction not emulated",
        "{}; {}",
        crash.0,
        started.place()
    );
    started.running.passed();
    Ok(())
}

/// The cause of each task switch of `tasks`, in the words of the crash.
const SWITCHES: [&str; 5] =
    ["a far JMP", "a far CALL", "IRET with NT set", "a task gate in the IDT", "a far JMP"];

/// In each incarnation the kernel switches tasks in another way. QEMU's emulation does not
/// intercept the switch: there the second task runs, and resets the machine.
fn a_task_switch_ends_with_its_reason(bed: Bed) -> Result<()> {
    let partition = "dump = \"off\"\nrestart = \"immediate\"";
    let scenario = Scenario { at_end: "stay", partition, ..Scenario::new("tasks", "") };
    let mut started = scenario.start(bed, &format!("{}-tasks", bed.name()))?;
    started.running.events.wait_for(LIMIT, "the verdict", |event| {
        event.name() == "guest" && event.0["kind"] == "pass"
    })?;
    let events = started.running.events.all();
    let ends: Vec<_> =
        events.iter().filter(|event| matches!(event.name(), "crash" | "stopped")).collect();
    for (way, by) in SWITCHES.iter().enumerate() {
        let end =
            ends.get(way).with_context(|| format!("no end of way {way}; {}", started.place()))?;
        let told = format!("hardware task switch by {by} to TSS 0x20, which is not offered");
        let is_refused = end.0["reason"] == "task switch"
            && end.0["detail"] == 0x20
            && end.0["text"] == told.as_str();
        let is_as_expected = if bed == Bed::Qemu { end.0["how"] == "reset" } else { is_refused };
        ensure!(
            is_as_expected && end.0["incarnation"] == way + 1,
            "way {way}: {}; {}",
            end.0,
            started.place()
        );
    }
    started.running.passed();
    Ok(())
}
