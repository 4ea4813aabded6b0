//! The flush protocol.
use super::object::ObjectId;

/// Number of a CPU, counted from 0 without holes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuIndex(pub u8);

/// CPUs that must leave guest mode: one bit each, bit n is CPU n.
#[must_use = "a CPU that is not kicked may stay in the guest for ever"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kicks(pub u32);

/// What a CPU must flush before it goes on into the guest (INVEPT of the object's table, a fresh ASID).
#[must_use = "the guest must not run before the flush"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flush {
    /// Whose translations.
    pub object: ObjectId,
}

/// One word a CPU, that says where the CPU is.
#[derive(Debug)]
pub struct CpuWords {}

impl CpuWords {
    /// Most CPUs.
    pub const MAX_CPUS: usize = 8;
    /// Makes the words of `cpus` CPUs, all idle.
    pub fn new(_cpus: usize) -> Self {
        todo!()
    }
    /// Publishes that `cpu` runs the guest of `object` from now on; says whether it must flush first.
    pub fn enter(&self, _cpu: CpuIndex, _object: ObjectId, _generation: &Generation) -> Option<Flush> {
        todo!()
    }
    /// Publishes that `cpu` is in the hypervisor from now on: after an exit, and after idling.
    pub fn leave(&self, _cpu: CpuIndex) {
        todo!()
    }
    /// Publishes that `cpu` idles: it holds no translation until it [leaves](CpuWords::leave).
    pub fn idle(&self, _cpu: CpuIndex) {
        todo!()
    }
}

/// How often translations of an object were taken away.
#[derive(Debug)]
pub struct Generation {}

/// Open until every CPU that could hold a translation taken away before has passed.
#[must_use = "frames wait for this ticket"]
#[derive(Debug)]
pub struct Ticket {}

impl Ticket {
    /// Looks again; `Some` once every CPU has passed.
    pub fn poll(&mut self, _words: &CpuWords) -> Option<Passed> {
        todo!()
    }
}

/// Proof that a ticket has passed.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    #[allow(dead_code)]
    object: ObjectId,
}
