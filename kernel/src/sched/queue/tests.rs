use super::*;
use crate::time::Ns;

const A: CpuId = CpuId::new(0);
const B: CpuId = CpuId::new(1);
const MS: Ns = Ns::from_ms(1);

fn queue(vcpus: usize) -> RunQueue<u32> {
    let mut queue = RunQueue::new();
    (0..vcpus).for_each(|vcpu| _ = queue.insert(VcpuId(vcpu as u16)));
    queue
}

/// Gives `cpu` its next turn, and gives the evicted vCPU away.
fn next(queue: &mut RunQueue<u32>, cpu: CpuId, now: Ns) -> Option<usize> {
    let turn = queue.next(cpu, now)?;
    if let Some(evict) = turn.evict {
        let _ = queue.given_away(evict);
    }
    Some(turn.vcpu.index())
}

fn again(queue: &mut RunQueue<u32>, vcpu: usize, cpu: CpuId, now: Ns) {
    queue.put_back(VcpuId(vcpu as u16), now, VcpuWish::Again, Some(cpu));
}

fn wait(queue: &mut RunQueue<u32>, vcpu: usize, cpu: CpuId, now: Ns, on: u32, until: Option<Ns>) {
    queue.put_back(VcpuId(vcpu as u16), now, VcpuWish::Wait { on, until }, Some(cpu));
}

#[test]
fn one_vcpu_stays_where_it_is_and_is_never_given_away() {
    let mut queue = queue(1);
    let turn = queue.next(A, Ns::ZERO).unwrap();
    assert_eq!((turn.vcpu.index(), turn.evict, turn.until), (0, None, SLICE_NS));
    again(&mut queue, 0, A, 10 * MS);
    assert_eq!(queue.next(B, 10 * MS), None);
    let turn = queue.next(A, 10 * MS).unwrap();
    assert_eq!((turn.vcpu.index(), turn.evict), (0, None));
}

#[test]
fn three_that_never_wait_share_two_cpus_alike() {
    let mut queue = queue(3);
    let mut runs = [next(&mut queue, A, Ns::ZERO), next(&mut queue, B, Ns::ZERO)];
    let mut used = [Ns::ZERO; 3];
    let mut moved = false;
    for slice in 1..=3000_u64 {
        let now = slice * SHARED_SLICE_NS;
        for (cpu, run) in [A, B].into_iter().zip(&mut runs) {
            let vcpu = run.unwrap();
            used[vcpu] += SHARED_SLICE_NS;
            again(&mut queue, vcpu, cpu, now);
            *run = next(&mut queue, cpu, now);
            moved |= run.is_some_and(|v| v != vcpu);
        }
        assert_ne!(runs[0], runs[1], "one vCPU on two CPUs");
    }
    let (least, most) = (used.iter().min().unwrap(), used.iter().max().unwrap());
    assert!(moved && *most - *least <= 4 * SHARED_SLICE_NS, "{used:?}");
}

#[test]
fn a_cpu_takes_only_what_no_other_holds() {
    let mut queue = queue(2);
    assert_eq!(next(&mut queue, A, Ns::ZERO), Some(0));
    again(&mut queue, 0, A, MS);
    assert_eq!(next(&mut queue, B, MS), Some(1));
    assert_eq!(queue.next(CpuId::new(2), MS), None, "0 is in A's registers");
    assert_eq!(next(&mut queue, A, MS), Some(0));
}

#[test]
fn a_reserved_cpu_takes_nothing_and_nobody_counts_on_it() {
    let mut queue = queue(1);
    queue.reserve(A);
    assert_eq!(queue.cpus_of(2), 1);
    assert_eq!(queue.next(A, Ns::ZERO), None, "although one is ready");
    assert_eq!(queue.idle(A, Ns::ZERO), IdleAnswer::UntilKicked);
    assert_eq!(next(&mut queue, B, Ns::ZERO), Some(0));
    queue.put_back(VcpuId(0), MS, VcpuWish::Wait { on: 1, until: Some(2 * MS) }, None);
    assert_eq!(
        queue.idle(A, MS),
        IdleAnswer::UntilKicked,
        "the wait's end is none of its business"
    );
    assert_eq!(queue.idle(B, MS), IdleAnswer::Until(2 * MS));
    assert_eq!(queue.wake(|| MS, |_| true), Kicks(bit(B)));
}

#[test]
fn who_is_given_away_is_told_to_an_idle_cpu() {
    let mut queue = queue(2);
    assert_eq!(next(&mut queue, A, Ns::ZERO), Some(0));
    // Long enough for the other vCPU to be well behind.
    again(&mut queue, 0, A, 5 * MS);
    assert_eq!(next(&mut queue, B, 5 * MS), Some(1));
    wait(&mut queue, 1, B, 5 * MS, 7, None);
    assert_eq!(queue.idle(B, 5 * MS), IdleAnswer::UntilKicked);
    assert_eq!(queue.wake(|| 5 * MS, |on| *on == 7), Kicks(bit(B)), "its holder, although A could");
    assert_eq!(next(&mut queue, B, 5 * MS), Some(1));
    queue.put_back(VcpuId(1), 6 * MS, VcpuWish::Again, None);
    assert_eq!(
        queue.next(A, 6 * MS).map(|turn| (turn.vcpu, turn.evict)),
        Some((VcpuId(1), Some(VcpuId(0))))
    );
    assert_eq!(queue.idle(B, 6 * MS), IdleAnswer::UntilKicked, "A still holds 0");
    assert_eq!(queue.given_away(VcpuId(0)), Kicks(bit(B)));
    assert_eq!(next(&mut queue, B, 6 * MS), Some(0));
}

#[test]
fn what_happens_during_a_turn_ends_the_wait_after_it() {
    let mut queue = queue(1);
    next(&mut queue, A, Ns::ZERO);
    assert_eq!(queue.wake(|| Ns::ZERO, |_| true), Kicks(0), "one that runs is not disturbed");
    wait(&mut queue, 0, A, MS, 1, None);
    assert_eq!(next(&mut queue, A, MS), Some(0), "it looks once more");
    wait(&mut queue, 0, A, MS, 1, None);
    assert_eq!(queue.next(A, MS), None);
}

#[test]
fn a_request_ends_the_stay_or_the_wait() {
    let mut queue = queue(2);
    next(&mut queue, A, Ns::ZERO);
    assert_eq!(queue.poke(VcpuId(0), Ns::ZERO), Kicks(bit(A)));
    assert_eq!(queue.poke(VcpuId(1), Ns::ZERO), Kicks(0), "a ready one is looked at anyhow");
    assert_eq!(queue.poke(VcpuId(9), Ns::ZERO), Kicks(0));
    wait(&mut queue, 0, A, Ns::ZERO, 1, None);
    assert_eq!(next(&mut queue, A, Ns::ZERO), Some(0));
    wait(&mut queue, 0, A, Ns::ZERO, 1, None);
    next(&mut queue, B, Ns::ZERO);
    assert_eq!(queue.idle(A, Ns::ZERO), IdleAnswer::UntilKicked);
    assert_eq!(queue.poke(VcpuId(0), Ns::ZERO), Kicks(bit(A)));
}

#[test]
fn time_ends_a_wait_and_an_idle_cpu_knows_when() {
    let mut queue = queue(1);
    next(&mut queue, A, Ns::ZERO);
    wait(&mut queue, 0, A, Ns::ZERO, 1, Some(3 * MS));
    assert_eq!(queue.idle(A, MS), IdleAnswer::Until(3 * MS));
    assert_eq!(queue.idle(B, MS), IdleAnswer::UntilKicked, "A holds it");
    assert_eq!(queue.idle(A, 3 * MS), IdleAnswer::HasWork);
    assert_eq!(next(&mut queue, A, 3 * MS), Some(0));
}

#[test]
fn a_turn_ends_when_a_sleepers_time_comes() {
    let mut queue = queue(2);
    next(&mut queue, A, Ns::ZERO);
    queue.put_back(VcpuId(0), Ns::ZERO, VcpuWish::Wait { on: 1, until: Some(3 * MS) }, None);
    assert_eq!(queue.next(A, Ns::ZERO).map(|turn| turn.until), Some(3 * MS));
}

#[test]
fn who_wakes_drives_out_who_has_used_most_only_when_no_cpu_idles() {
    let mut queue = queue(3);
    let sleeper = next(&mut queue, A, Ns::ZERO).unwrap();
    queue.put_back(VcpuId(sleeper as u16), Ns::ZERO, VcpuWish::Wait { on: 1, until: None }, None);
    assert_eq!((next(&mut queue, A, Ns::ZERO), next(&mut queue, B, 8 * MS)), (Some(1), Some(2)));
    assert_eq!(queue.wake(|| 9 * MS, |_| true), Kicks(bit(A)), "A's has run for 9 ms, B's for 1");
    again(&mut queue, 1, A, 9 * MS);
    assert_eq!(next(&mut queue, A, 9 * MS), Some(sleeper));
}

#[test]
fn who_wakes_too_late_to_be_behind_waits_for_the_end_of_a_turn() {
    let mut queue = queue(2);
    next(&mut queue, A, Ns::ZERO);
    queue.put_back(VcpuId(0), 9 * MS, VcpuWish::Wait { on: 1, until: None }, None);
    next(&mut queue, A, 9 * MS);
    assert_eq!(queue.wake(|| 10 * MS, |_| true), Kicks(0), "it has used 9 ms, the other 1");
}

#[test]
fn sleeping_saves_nothing_up() {
    let mut queue = queue(2);
    next(&mut queue, A, Ns::ZERO);
    queue.put_back(VcpuId(0), Ns::ZERO, VcpuWish::Wait { on: 1, until: None }, None);
    for slice in 0..1000 {
        assert_eq!(next(&mut queue, A, slice * 10 * MS), Some(1));
        again(&mut queue, 1, A, (slice + 1) * 10 * MS);
    }
    let now = 10_000 * MS;
    let _ = queue.wake(|| now, |_| true);
    // Behind by one bonus and the granularity: then the other vCPU is next again.
    let mut turns = 0;
    let mut at = now;
    while next(&mut queue, A, at) == Some(0) {
        at += 4 * MS;
        again(&mut queue, 0, A, at);
        turns += 1;
    }
    assert!((1..=6).contains(&turns), "{turns} turns in a row");
}

#[test]
fn every_vcpu_gets_its_turn_whatever_the_others_do() {
    // Two vCPUs that wake each other at every turn, a third that only computes, and one CPU.
    let mut queue = queue(3);
    let mut used = [Ns::ZERO; 3];
    let mut now = Ns::ZERO;
    for _ in 0..3000 {
        let vcpu = next(&mut queue, A, now).unwrap();
        let run = if vcpu == 2 { 4 * MS } else { MS / 4 };
        now += run;
        used[vcpu] += run;
        match vcpu {
            2 => again(&mut queue, 2, A, now),
            _ => wait(&mut queue, vcpu, A, now, 1 - vcpu as u32, Some(now + MS)),
        }
        let _ = queue.wake(|| now, |on| *on == vcpu as u32);
    }
    let share = now / 8;
    assert!(used.iter().all(|&used| used > share), "{used:?} of {now:?}");
}

/// Ends the turn of a vCPU on `cpu` for good.
fn leave(queue: &mut RunQueue<u32>, vcpu: usize, cpu: CpuId, now: Ns) {
    assert_eq!(next(queue, cpu, now), Some(vcpu));
    queue.remove(VcpuId(vcpu as u16));
}

#[test]
fn what_is_absent_is_neither_woken_nor_poked_nor_chosen() {
    let mut queue = queue(3);
    assert_eq!(next(&mut queue, A, Ns::ZERO), Some(0));
    wait(&mut queue, 0, A, MS, 1, Some(2 * MS));
    leave(&mut queue, 1, A, MS);
    assert_eq!(queue.entries.len(), 3, "2 is behind it");
    leave(&mut queue, 2, A, MS);
    assert_eq!(queue.entries.len(), 1, "the loops are as short as they can be");
    assert_eq!(next(&mut queue, A, 2 * MS), Some(0));
    wait(&mut queue, 0, A, 2 * MS, 1, None);
    let _ = queue.insert(VcpuId(2));
    leave(&mut queue, 2, A, 2 * MS);
    let _ = queue.insert(VcpuId(3));
    assert_eq!(next(&mut queue, A, 2 * MS), Some(3));
    wait(&mut queue, 3, A, 2 * MS, 5, None);
    assert_eq!(queue.idle(A, 2 * MS), IdleAnswer::UntilKicked, "1 and 2 are absent");
    assert_eq!(queue.poke(VcpuId(1), 2 * MS), Kicks(0));
    assert_eq!(queue.poke(VcpuId(9), 2 * MS), Kicks(0));
    assert_eq!(queue.given_away(VcpuId(2)), Kicks(0));
    assert_eq!(queue.wake(|| 2 * MS, |_| false), Kicks(0));
    assert_eq!(queue.next(A, 99 * MS), None);
}

#[test]
fn a_number_that_is_used_again_begins_like_a_new_vcpu() {
    let mut queue = queue(2);
    leave(&mut queue, 0, A, Ns::ZERO);
    // The other one goes on for a second.
    assert_eq!(next(&mut queue, A, Ns::ZERO), Some(1));
    again(&mut queue, 1, A, 1000 * MS);
    assert_eq!(next(&mut queue, A, 1000 * MS), Some(1));
    let _ = queue.insert(VcpuId(0));
    assert_eq!(queue.entries[0].used_ns, 1000 * MS, "no time is saved up");
    assert_eq!(next(&mut queue, B, 1000 * MS), Some(0), "and no CPU holds it");
}

#[test]
fn a_new_vcpu_is_told_to_an_idle_cpu() {
    let mut queue = queue(0);
    assert_eq!(queue.idle(B, MS), IdleAnswer::UntilKicked);
    assert_eq!(queue.insert(VcpuId(0)), Kicks(bit(B)));
}

#[test]
fn an_absent_vcpu_does_not_hold_the_floor() {
    let mut queue = queue(2);
    leave(&mut queue, 0, A, Ns::ZERO);
    for ms in 1..=3 {
        assert_eq!(next(&mut queue, A, (ms - 1) * 100 * MS), Some(1));
        again(&mut queue, 1, A, ms * 100 * MS);
    }
    assert_eq!(next(&mut queue, A, 300 * MS), Some(1));
    assert_eq!(queue.floor_ns, 300 * MS);
}
