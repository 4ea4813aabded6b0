//! A minimal guest that exercises a back end: `selftest=virt` on the command line.
//!
//! Every check starts the same guest afresh on a few bytes of machine code. It sees the exits only
//! through the vendor-neutral interface, so both back ends must pass the same checks. Prints one
//! line per check on the serial port.

mod checks;
mod guest;
mod modes;
mod other_cpu;

use super::contract::MissingFeatureError;
use super::exit::VmExit;
use super::face::{Backend, Vcpu};
use super::frame::ControlFrame;
use super::state::{Gpr, Regs};
use super::tag::{TlbTag, TlbTags};
use crate::arch::direct_map;
use crate::arch::interrupts;
use crate::arch::physmem::PhysicalMemory;
use crate::log::exit::ExitCode;
use guest::SelftestMemory;
use log::{error, info};

/// Runs all checks: on the calling CPU, then on another one if there is one. The other CPUs have
/// been started, but not released.
pub fn run(physical: &mut PhysicalMemory) -> ExitCode {
    match Backend::detect().and_then(|backend| run_on_all(backend, physical)) {
        Ok(Score { failed: 0, passed }) => {
            info!("selftest virt: {passed} passed, 0 failed");
            ExitCode::Success
        }
        Ok(Score { failed, passed }) => {
            error!("selftest virt: {passed} passed, {failed} failed");
            ExitCode::Failure
        }
        Err(missing) => {
            error!("selftest virt: this machine cannot run partitions: {missing}");
            ExitCode::Failure
        }
    }
}

fn run_on_all(
    backend: Backend,
    physical: &mut PhysicalMemory,
) -> Result<Score, MissingFeatureError> {
    info!("selftest virt: {}, {:?}", backend.name(), backend.capabilities());
    let mut tags = TlbTags::new(backend.capabilities().tags);
    let cpu = backend.enable_cpu(cpu_frames(physical)?)?;
    let mut bench = SelftestBench::new(backend, physical, tags.allocate())?;
    checks::all(&mut bench, &cpu);
    let here = bench.score;
    let there = other_cpu::run(
        SelftestBench::new(backend, physical, tags.allocate())?,
        cpu_frames(physical)?,
    )?;
    Ok(Score { passed: here.passed + there.passed, failed: here.failed + there.failed })
}

/// How many checks passed and failed.
#[derive(Clone, Copy, Default)]
struct Score {
    passed: u32,
    failed: u32,
}

/// A guest, its back end, and the score.
struct SelftestBench {
    backend: Backend,
    vcpu: Vcpu,
    memory: SelftestMemory,
    score: Score,
}

impl SelftestBench {
    fn new(
        backend: Backend,
        physical: &mut PhysicalMemory,
        tag: TlbTag,
    ) -> Result<Self, MissingFeatureError> {
        let memory = SelftestMemory::new(backend, physical).ok_or(NO_MEMORY)?;
        let mut vcpu = backend.new_vcpu(frame(physical)?);
        vcpu.set_memory(memory.root(), tag);
        vcpu.offer_cr4(PAE);
        Ok(Self { backend, vcpu, memory, score: Score::default() })
    }

    /// Resets the guest to the start of `code`.
    fn start(&mut self, code: &[u8]) {
        self.memory.copy_in(guest::CODE, code);
        self.vcpu.set_state(&guest::state());
        let regs = self.vcpu.regs_mut();
        *regs = Regs { rip: guest::CODE, rflags: 2, ..Regs::default() };
        regs.set(Gpr::Rsp, guest::STACK_TOP);
    }

    /// Runs until an exit for the caller. Takes host interrupts, and skips exits that the back end
    /// has handled.
    fn run(&mut self) -> VmExit {
        let mut exit = self.vcpu.run();
        while matches!(exit, VmExit::Handled | VmExit::HostInterrupt) {
            interrupts::window();
            exit = self.vcpu.run();
        }
        exit
    }

    /// As [`Self::run`], after a flush.
    fn flush_and_run(&mut self) -> VmExit {
        self.vcpu.flush();
        self.run()
    }

    /// Steps over `bytes` of the instruction that exited.
    fn skip(&mut self, bytes: u64) {
        let rip = self.vcpu.regs().rip + bytes;
        self.vcpu.advance_to(rip);
    }

    /// Returns the offset of RIP in the code.
    fn at(&self) -> u64 {
        self.vcpu.regs().rip.wrapping_sub(guest::CODE)
    }

    fn check(&mut self, what: &str, outcome: CheckOutcome, exit: VmExit) {
        match outcome {
            CheckOutcome::Held => {
                self.score.passed += 1;
                info!("  ok    {what}");
            }
            CheckOutcome::Broken => {
                self.score.failed += 1;
                error!("  FAIL  {what}: {exit:?}{} {:x?}", self.vcpu.raw_exit(), self.vcpu.regs());
            }
        }
    }
}

/// Whether a check passed.
enum CheckOutcome {
    Held,
    Broken,
}

impl From<bool> for CheckOutcome {
    fn from(held: bool) -> Self {
        if held { Self::Held } else { Self::Broken }
    }
}

/// The CR4 bits that the guests may set.
const PAE: u64 = 1 << 5;

const NO_MEMORY: MissingFeatureError = MissingFeatureError("memory for the test guest");

/// Takes the frames for [`Backend::enable_cpu`].
fn cpu_frames(
    physical: &mut PhysicalMemory,
) -> Result<[ControlFrame; Backend::FRAMES_PER_CPU], MissingFeatureError> {
    Ok([frame(physical)?, frame(physical)?])
}

#[expect(unsafe_code)] // UNSAFETY: hands a frame to the back end
fn frame(physical: &mut PhysicalMemory) -> Result<ControlFrame, MissingFeatureError> {
    let hpa = physical.take_page().ok_or(NO_MEMORY)?;
    // SAFETY: just taken: zeroed, without another user, and mapped for good.
    Ok(unsafe { ControlFrame::new(hpa, direct_map::hva(hpa)) })
}
