//! The same checks on a second CPU, and a kick from the first CPU that ends a guest's stay there.
//!
//! ```text
//!   CPU 0   hand over the bench ─ release ─ wait SPINNING ─ kick ─ wait DONE ─ take the score
//!   CPU 1                          checks ─ SPINNING, guest spins ... exit ─ DONE
//! ```

use super::{CheckOutcome, Score, SelftestBench, checks};
use crate::arch::percpu::{self, CpuId};
use crate::arch::vectors;
use crate::arch::{instr, interrupts, smp, time};
use crate::time::Ns;
use crate::virt::contract::MissingFeatureError;
use crate::virt::exit::VmExit;
use crate::virt::face::Backend;
use crate::virt::frame::ControlFrame;
use core::sync::atomic::{AtomicU8, Ordering};
use log::info;
use spin::Mutex;

/// Handed over by CPU 0: the bench, and frames to enable the other CPU.
type Handed = (SelftestBench, Option<CpuFrames>);
type CpuFrames = [ControlFrame; Backend::FRAMES_PER_CPU];

static BENCH: Mutex<Option<Handed>> = Mutex::new(None);
static STAGE: AtomicU8 = AtomicU8::new(CHECKING);
const CHECKING: u8 = 0;
const SPINNING: u8 = 1;
const DONE: u8 = 2;

/// Much longer than the checks take on the slowest emulator.
const PATIENCE_NS: Ns = Ns::from_secs(20);

/// Runs the checks of `bench` on the next CPU, if there is one.
///
/// # Errors
/// That CPU did not answer in time.
pub(super) fn run(bench: SelftestBench, frames: CpuFrames) -> Result<Score, MissingFeatureError> {
    let Some(other) = percpu::others().next() else {
        info!("selftest virt: one CPU: nobody to kick");
        return Ok(Score::default());
    };
    *BENCH.lock() = Some((bench, Some(frames)));
    smp::release(other_main);
    wait_for(SPINNING)?;
    time::spin_ns(Ns::from_ms(1));
    interrupts::kick(other);
    wait_for(DONE)?;
    Ok(BENCH.lock().as_ref().map_or(Score { passed: 0, failed: 1 }, |(bench, _)| bench.score))
}

fn wait_for(stage: u8) -> Result<(), MissingFeatureError> {
    let deadline = time::now_ns() + PATIENCE_NS;
    while STAGE.load(Ordering::Acquire) < stage {
        if time::now_ns() > deadline {
            return Err(MissingFeatureError("an answer of the second CPU"));
        }
        instr::pause();
    }
    Ok(())
}

/// The main function of the other CPUs: CPU 1 takes the bench.
fn other_main(cpu: CpuId) -> ! {
    let handed = if cpu == CpuId::new(1) { BENCH.lock().take() } else { None };
    if let Some((mut bench, Some(frames))) = handed {
        on_this_cpu(&mut bench, frames);
        *BENCH.lock() = Some((bench, None));
        STAGE.store(DONE, Ordering::Release);
    }
    loop {
        interrupts::idle(None);
    }
}

fn on_this_cpu(bench: &mut SelftestBench, frames: CpuFrames) {
    match bench.backend.enable_cpu(frames) {
        Ok(cpu) => {
            checks::all(bench, &cpu);
            bench.vcpu.load(&cpu);
            a_kick_ends_a_guest_that_spins(bench);
            bench.vcpu.unload();
        }
        Err(missing) => {
            info!("second CPU: {missing}");
            bench.check(
                "the second CPU has what the first has",
                CheckOutcome::Broken,
                VmExit::Handled,
            );
        }
    }
}

fn a_kick_ends_a_guest_that_spins(bench: &mut SelftestBench) {
    bench.start(&[0xeb, 0xfe]); // jmp here
    STAGE.store(SPINNING, Ordering::Release);
    let exit = loop {
        let exit = bench.vcpu.run();
        interrupts::window();
        if exit != VmExit::HostInterrupt || interrupts::take(vectors::KICK) > 0 {
            break exit;
        }
    };
    bench.check(
        "a kick ends the stay of a guest that spins",
        (exit == VmExit::HostInterrupt).into(),
        exit,
    );
}
