//! The answer of an exit handler: a [`Decision`], applied in one place.
//!
//! Handlers look at the vCPU, the devices and guest memory, and commit nothing before their last
//! access to guest memory has succeeded. So [`Decision::Park`] always means: run the guest again
//! later, and it repeats the instruction.

use super::devices::Effect;
use crate::addr::Gpa;
use crate::crash::record::Reason;
use crate::mm::guest::GuestAccess;
use crate::virt::Event;

/// What happens next to a vCPU that has exited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Go on at the same RIP.
    Resume,
    /// Go on behind the instruction, at this RIP.
    SkipTo(u64),
    /// Go on behind the instruction, then apply the device's effect.
    SkipWith(u64, Effect),
    /// Inject an exception instead of completing the instruction.
    Inject(Event),
    /// Go on behind HLT when an interrupt comes.
    Halt(u64),
    /// The page is not resident yet: wait for it, then repeat the access.
    Park(Gpa),
    /// A host interrupt is pending: let the host take it.
    TakeInterrupt,
    /// The partition cannot go on.
    Crash(Reason),
}

impl Decision {
    /// Returns the decision to go on at `rip` and to apply `effect`, if there is one.
    pub const fn after(rip: u64, effect: Effect) -> Self {
        match effect {
            Effect::None => Decision::SkipTo(rip),
            effect => Decision::SkipWith(rip, effect),
        }
    }
}

/// Turns a failed access to guest memory into a decision. If the hypervisor's access on the guest's
/// behalf hits an address that is no RAM, the guest is at fault: it gets #GP, as for an address
/// that is not canonical.
impl From<GuestAccess> for Decision {
    fn from(access: GuestAccess) -> Self {
        match access {
            GuestAccess::NotResident(gpa) => Decision::Park(gpa),
            GuestAccess::NotRam(_) => Decision::Inject(Event::general_protection()),
            GuestAccess::Lost(gpa) => Decision::Crash(Reason::PageLost(gpa.as_u64())),
            GuestAccess::Unwritable(gpa) => Decision::Crash(Reason::Unwritable(gpa.as_u64())),
        }
    }
}
