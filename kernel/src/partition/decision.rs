//! What an exit handler answers: a decision that one place applies.
//!
//! Handlers look at the vCPU, the devices and guest memory, and commit nothing before their last access to guest memory has
//! succeeded. So [`Decision::Park`] always means: run the guest again later, it repeats the instruction.

use super::crash::Reason;
use super::devices::Effect;
use crate::addr::Gpa;
use crate::mm::guest::GuestAccess;
use crate::virt::Event;

/// What happens next to a vCPU that has exited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Run on where the guest is.
    Resume,
    /// Go on behind the instruction.
    SkipTo(u64),
    /// Go on behind the instruction, then apply what a device wants.
    SkipWith(u64, Effect),
    /// Deliver an exception in the instruction's stead.
    Inject(Event),
    /// Go on behind HLT when an interrupt comes.
    Halt(u64),
    /// The page is on its way: repeat the access when it may be there.
    Park(Gpa),
    /// A host interrupt is pending: let it in.
    TakeInterrupt,
    /// The partition cannot go on.
    Crash(Reason),
}

impl Decision {
    /// Goes on at `rip` with what a device wants, if anything.
    pub const fn after(rip: u64, effect: Effect) -> Self {
        match effect {
            Effect::None => Decision::SkipTo(rip),
            effect => Decision::SkipWith(rip, effect),
        }
    }
}

/// Access to guest memory that failed, as a decision. The hypervisor's own access on the guest's behalf to what is no RAM
/// is the guest's fault: #GP, as for an address that is not canonical.
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
