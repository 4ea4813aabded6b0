//! The answer of an exit handler: a [`ExitDecision`], applied in one place.
//!
//! Handlers look at the vCPU, the devices and guest memory, and commit nothing before their last
//! access to guest memory has succeeded. So [`ExitDecision::Park`] always means: run the guest
//! again later, and it repeats the instruction.

use super::devices::DeviceEffect;
use crate::addr::Gpa;
use crate::crash::record::CrashCause;
use crate::mm::guest::GuestMemoryError;
use crate::virt::InjectedEvent;

/// What happens next to a vCPU that has exited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitDecision {
    /// Go on at the same RIP.
    Resume,
    /// Go on behind the instruction, at this RIP.
    SkipTo(u64),
    /// Go on behind the instruction, then apply the device's effect.
    SkipWith(u64, DeviceEffect),
    /// Inject an exception instead of completing the instruction.
    Inject(InjectedEvent),
    /// Go on behind HLT when an interrupt comes.
    Halt(u64),
    /// The page is not resident yet: wait for it, then repeat the access.
    Park(Gpa),
    /// A host interrupt is pending: let the host take it.
    TakeInterrupt,
    /// The partition cannot go on.
    Crash(CrashCause),
}

impl ExitDecision {
    /// Returns the decision to go on at `rip` and to apply `effect`, if there is one.
    pub const fn after(rip: u64, effect: DeviceEffect) -> Self {
        match effect {
            DeviceEffect::None => ExitDecision::SkipTo(rip),
            effect => ExitDecision::SkipWith(rip, effect),
        }
    }
}

/// Turns a failed access to guest memory into a decision. If the hypervisor's access on the guest's
/// behalf hits an address that is no RAM, the guest is at fault: it gets #GP, as for an address
/// that is not canonical.
impl From<GuestMemoryError> for ExitDecision {
    fn from(access: GuestMemoryError) -> Self {
        match access {
            GuestMemoryError::NotResident(gpa) => ExitDecision::Park(gpa),
            GuestMemoryError::NotRam(_) => {
                ExitDecision::Inject(InjectedEvent::general_protection())
            }
            GuestMemoryError::Lost(gpa) => ExitDecision::Crash(CrashCause::PageLost(gpa.as_u64())),
            GuestMemoryError::Unwritable(gpa) => {
                ExitDecision::Crash(CrashCause::Unwritable(gpa.as_u64()))
            }
        }
    }
}
