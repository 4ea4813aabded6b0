//! The short way round: exits that are answered at once, and the guest goes on.
//!
//! ```text
//!   enter ──> run ──> exit ──┬─ CPUID of a fixed leaf, a port that needs no guest memory ──> run
//!                            └─ all others, news for the guest, the last one in a row ──> leave
//! ```
//!
//! To the flush protocol the guest runs on meanwhile: nothing here touches guest memory, the CPU's word stays, and whoever waits
//! for it to move has kicked this CPU. The kick is an interrupt that is pending at the next run and ends it at once; so are
//! the host's timer, a completed request of a disk, a key. That is why nobody needs to be asked here whether there is something to do.
//!
//! Devices are brought up to date by the longer way, which is taken as soon as one of them has sent the local APIC a message.

use super::io::access_port;
use crate::partition::cpuid::FixedAnswers;
use crate::partition::devices::{Effect, Platform};
use crate::partition::machine::Machine;
use crate::partition::skip::Lengths;
use crate::virt::{Exit, Gpr, Runs, Vcpu};

/// After so many exits the longer way is taken once, which looks at the time and at who asks. It is for emulators that
/// take no interrupt from a guest with IF clear: elsewhere the timer ends a stay.
const EXITS_IN_A_ROW: u64 = 64;

/// Why the short way ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// The last exit wants a closer look.
    Exit,
    /// All is answered, and there may be an event for the guest.
    News,
    /// All is answered, and a device wants something.
    Effect(Effect),
}

impl Machine {
    /// Runs the guest, and answers exits, until one needs more; says how many there were.
    pub(in crate::partition) fn run_quick(&mut self) -> (Left, u64) {
        let Machine { vcpu, platform, lengths, cpuid, .. } = self;
        let mut answers = Answers { platform, lengths, cpuid };
        match vcpu {
            Vcpu::Vmx(vcpu) => answers.run(vcpu),
            Vcpu::Svm(vcpu) => answers.run(vcpu),
        }
    }
}

/// What exits are answered from.
struct Answers<'a> {
    platform: &'a mut Platform,
    lengths: &'a Lengths,
    cpuid: &'a FixedAnswers,
}

impl Answers<'_> {
    /// Kept apart for each back end, with all of the CPU's registers for itself.
    #[inline(never)]
    fn run<V: Runs>(&mut self, vcpu: &mut V) -> (Left, u64) {
        for exits in 1..EXITS_IN_A_ROW {
            let reason = vcpu.enter();
            if reason == V::CPUID {
                if let Some(left) = self.cpuid(vcpu) {
                    return (left, exits);
                }
            } else if reason == V::PORT {
                if let Some(left) = self.port(vcpu) {
                    return (left, exits);
                }
            } else {
                return (Left::Exit, exits);
            }
        }
        vcpu.enter();
        (Left::Exit, EXITS_IN_A_ROW)
    }

    #[inline(always)]
    fn cpuid(&self, vcpu: &mut impl Runs) -> Option<Left> {
        let Some(next) = self.lengths.next_rip(vcpu, Exit::Cpuid) else { return Some(Left::Exit) };
        let Some(leaf) = self.cpuid.get(vcpu.regs().get(Gpr::Rax) as u32) else { return Some(Left::Exit) };
        leaf.load(|gpr, value| vcpu.set(gpr, value));
        vcpu.advance_to(next);
        None
    }

    #[inline(always)]
    fn port(&mut self, vcpu: &mut impl Runs) -> Option<Left> {
        let Some(io) = vcpu.port_access().filter(|io| !io.string) else { return Some(Left::Exit) };
        let Some(next) = self.lengths.next_rip(vcpu, Exit::Io(io)) else { return Some(Left::Exit) };
        let Some(effect) = access_port(self.platform, vcpu, io) else { return Some(Left::Exit) };
        vcpu.advance_to(next);
        match effect {
            // Output waits in the devices and is fetched at the end of the stay; a stop for each byte would be slow.
            Effect::None | Effect::Console if self.platform.lapic().has_news() => Some(Left::News),
            Effect::None | Effect::Console => None,
            effect => Some(Left::Effect(effect)),
        }
    }
}
