//! A triple fault: a crash, or a kernel's way to reset the machine.
//!
//! A kernel that resets the machine by a triple fault loads an interrupt descriptor table of limit
//! 0 and executes INT3, whose delivery then fails three times: Linux with `reboot=t`
//! (`arch/x86/kernel/reboot.c`, `BOOT_TRIPLE`), FreeBSD and Xen as their last resort. A kernel that
//! has lost its tables has another limit, or faults at another instruction. A kernel that takes
//! over by kexec has the limit 0 for a while, and faults there at other instructions.

use super::fetch::{self, CodeView, FetchError};
use super::walk::WalkError;
use crate::mm::guest::{GuestMemory, GuestMemoryError};
use crate::virt::CpuState;

/// INT3.
const BREAKPOINT: u8 = 0xcc;

/// The meaning of a triple fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TripleFault {
    /// The guest has lost its tables.
    Crash,
    /// The guest has asked for a reset.
    Reset,
}

/// Decides the meaning of the triple fault at the instruction at `rip`.
///
/// # Errors
/// The page of the instruction is not resident: try again later.
pub fn triple_fault(
    memory: &dyn GuestMemory,
    state: &CpuState,
    rip: u64,
) -> Result<TripleFault, GuestMemoryError> {
    if state.idtr.limit != 0 {
        return Ok(TripleFault::Crash);
    }
    match fetch::opcode(memory, &CodeView::from(state), rip) {
        Ok(BREAKPOINT) => Ok(TripleFault::Reset),
        Err(FetchError::Walk(WalkError::Memory(access @ GuestMemoryError::NotResident(_)), _)) => {
            Err(access)
        }
        Ok(_) | Err(_) => Ok(TripleFault::Crash),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Gpa;
    use crate::partition::fake::FakeGuestMemory;
    use crate::virt::{DescriptorTable, SegmentRegister};

    const RIP: u64 = 0x1800;

    fn state(limit: u16) -> CpuState {
        let code = SegmentRegister { selector: 8, attributes: 0xc09b, limit: u32::MAX, base: 0 };
        CpuState { idtr: DescriptorTable { base: 0, limit }, ..CpuState::flat(code, code) }
    }

    fn of(limit: u16, instruction: u8) -> Result<TripleFault, GuestMemoryError> {
        let memory = FakeGuestMemory::new(0x3000);
        memory.poke(RIP, &[instruction]);
        triple_fault(&memory, &state(limit), RIP)
    }

    #[test]
    fn only_a_breakpoint_without_a_table_asks_for_a_reset() {
        assert_eq!(of(0, BREAKPOINT), Ok(TripleFault::Reset));
        for (limit, instruction) in [
            (0, 0x0f),
            (0, 0x90),
            (0, 0xcd),
            (1, BREAKPOINT),
            (0xfff, BREAKPOINT),
            (0xffff, BREAKPOINT),
        ] {
            assert_eq!(
                of(limit, instruction),
                Ok(TripleFault::Crash),
                "{limit:#x} {instruction:#x}"
            );
        }
    }

    #[test]
    fn a_kernel_that_never_loaded_a_table_crashes() {
        let code = SegmentRegister { selector: 8, attributes: 0xc09b, limit: u32::MAX, base: 0 };
        let memory = FakeGuestMemory::new(0x3000);
        memory.poke(RIP, &[BREAKPOINT]);
        assert_eq!(triple_fault(&memory, &CpuState::flat(code, code), RIP), Ok(TripleFault::Crash));
    }

    #[test]
    fn a_page_that_is_away_is_waited_for_and_code_outside_memory_is_a_crash() {
        let memory = FakeGuestMemory::new(0x3000);
        memory.evict(RIP);
        assert_eq!(
            triple_fault(&memory, &state(0), RIP),
            Err(GuestMemoryError::NotResident(Gpa::new(RIP & !0xfff)))
        );
        assert_eq!(triple_fault(&memory, &state(0), 0x10_0000), Ok(TripleFault::Crash));
    }
}
