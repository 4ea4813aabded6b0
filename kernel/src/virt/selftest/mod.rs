//! A minimal guest that exercises a back end: `selftest=virt` on the command line.
//!
//! Every check starts the same guest afresh on a few bytes of machine code. It sees the exits only
//! through the vendor-neutral interface, so both back ends must pass the same checks. Prints one
//! line per check on the serial port.

mod checks;
mod guest;
mod modes;
mod other_cpu;

use super::exit::Exit;
use super::face::{Backend, Missing, Vcpu};
use super::frame::ControlFrame;
use super::state::{Gpr, Regs};
use super::tag::{Tags, TlbTag};
use crate::arch::direct_map;
use crate::arch::interrupts;
use crate::arch::physmem::PhysicalMemory;
use crate::log::exit::ExitCode;
use guest::Memory;
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

fn run_on_all(backend: Backend, physical: &mut PhysicalMemory) -> Result<Score, Missing> {
    info!("selftest virt: {}, {:?}", backend.name(), backend.capabilities());
    let mut tags = Tags::new(backend.capabilities().tags);
    let cpu = backend.enable_cpu(cpu_frames(physical)?)?;
    let mut bench = Bench::new(backend, physical, tags.allocate())?;
    checks::all(&mut bench, &cpu);
    let here = bench.score;
    let there = other_cpu::run(Bench::new(backend, physical, tags.allocate())?, cpu_frames(physical)?)?;
    Ok(Score { passed: here.passed + there.passed, failed: here.failed + there.failed })
}

/// How many checks passed and failed.
#[derive(Clone, Copy, Default)]
struct Score {
    passed: u32,
    failed: u32,
}

/// A guest, its back end, and the score.
struct Bench {
    backend: Backend,
    vcpu: Vcpu,
    memory: Memory,
    score: Score,
}

impl Bench {
    fn new(backend: Backend, physical: &mut PhysicalMemory, tag: TlbTag) -> Result<Self, Missing> {
        let memory = Memory::new(backend, physical).ok_or(NO_MEMORY)?;
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
    fn run(&mut self) -> Exit {
        let mut exit = self.vcpu.run();
        while matches!(exit, Exit::Handled | Exit::HostInterrupt) {
            interrupts::window();
            exit = self.vcpu.run();
        }
        exit
    }

    /// As [`Self::run`], after a flush.
    fn flush_and_run(&mut self) -> Exit {
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

    fn check(&mut self, what: &str, outcome: Outcome, exit: Exit) {
        match outcome {
            Outcome::Held => {
                self.score.passed += 1;
                info!("  ok    {what}");
            }
            Outcome::Broken => {
                self.score.failed += 1;
                error!("  FAIL  {what}: {exit:?}{} {:x?}", self.vcpu.raw_exit(), self.vcpu.regs());
            }
        }
    }
}

/// Whether a check passed.
enum Outcome {
    Held,
    Broken,
}

impl From<bool> for Outcome {
    fn from(held: bool) -> Self {
        if held { Self::Held } else { Self::Broken }
    }
}

/// The CR4 bits that the guests may set.
const PAE: u64 = 1 << 5;

const NO_MEMORY: Missing = Missing("memory for the test guest");

/// Takes the frames for [`Backend::enable_cpu`].
fn cpu_frames(physical: &mut PhysicalMemory) -> Result<[ControlFrame; Backend::FRAMES_PER_CPU], Missing> {
    Ok([frame(physical)?, frame(physical)?])
}

#[expect(unsafe_code)] // UNSAFETY: hands a frame to the back end
fn frame(physical: &mut PhysicalMemory) -> Result<ControlFrame, Missing> {
    let hpa = physical.take_page().ok_or(NO_MEMORY)?;
    // SAFETY: just taken: zeroed, without another user, and mapped for good.
    Ok(unsafe { ControlFrame::new(hpa, direct_map::hva(hpa)) })
}
