//! What an exit handler answers: a decision that one place applies.
//!
//! Handlers look at the vCPU, the devices and guest memory, and commit nothing before their last access to guest memory has
//! succeeded. So [`Decision::Park`] always means: run the guest again later, it repeats the instruction.

use super::crash::Reason;
use crate::addr::Gpa;
use crate::partition::devices::effect::Effect;
use crate::virt::Event;

/// What happens next to a vCPU that has exited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Run on where the guest is.
    Resume,
    /// Step over the instruction, then run on.
    Skip,
    /// Step over the instruction, then apply what a device wants.
    SkipWith(Effect),
    /// Deliver an exception in the instruction's stead.
    Inject(Event),
    /// Step over HLT and wait for an interrupt.
    Halt,
    /// The page is on its way: repeat the access when it may be there.
    Park(Gpa),
    /// The partition cannot go on.
    Crash(Reason),
}
