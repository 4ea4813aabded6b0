//! Finds the cause of the interrupt shadow in which a guest would be entered. Emulators that lose
//! the shadow need it (`virt::svm::events`).
//!
//! The instruction before a shadowed one is STI, MOV SS or POP SS, and precedes it in memory: none
//! of these jumps. STI can be executed again with IF clear, and leaves the same state. A byte FB
//! may also be the last byte of a MOV SS: executed as STI, it leaves the same state, too. APM 3
//! "STI", SDM 2B "STI".

use super::fetch::{self, CodeView};
use crate::mm::guest::GuestMemory;
use crate::virt::{CpuState, Regs, ShadowSource};

/// The one byte of STI.
const STI: u8 = 0xfb;
const RFLAGS_VIRTUAL_8086: u64 = 1 << 17;

/// Returns the cause of the shadow. It is STI only if STI can be executed there again without an
/// exception.
pub fn source_of_shadow(memory: &dyn GuestMemory, state: &CpuState, regs: &Regs) -> ShadowSource {
    let privilege = (regs.rflags >> 12 & 3) as u8;
    let may_execute =
        state.cpl() <= privilege && regs.rflags & RFLAGS_VIRTUAL_8086 == 0 && !regs.single_steps();
    let before = regs.rip.wrapping_sub(1);
    if may_execute && fetch::opcode(memory, &CodeView::from(state), before) == Ok(STI) {
        ShadowSource::Sti
    } else {
        ShadowSource::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::fake::FakeGuestMemory;
    use crate::virt::SegmentRegister;

    const RIP: u64 = 0x1000;

    fn source(before: u8, rflags: u64, ring: u32) -> ShadowSource {
        let memory = FakeGuestMemory::new(0x3000);
        memory.poke(RIP - 1, &[before, 0x90]);
        let segment = |attributes| SegmentRegister {
            selector: 8,
            attributes: attributes | ring << 5,
            limit: u32::MAX,
            base: 0,
        };
        let state = CpuState::flat(segment(0xc09b), segment(0xc093));
        source_of_shadow(&memory, &state, &Regs { rip: RIP, rflags, ..Regs::default() })
    }

    #[test]
    fn sti_is_told_by_its_byte() {
        assert_eq!(source(0xfb, 0x202, 0), ShadowSource::Sti);
        // mov ss, eax and pop ss
        for last in [0xd0, 0x17] {
            assert_eq!(source(last, 0x202, 0), ShadowSource::Other);
        }
    }

    #[test]
    fn where_sti_would_raise_an_exception_it_is_not_repeated() {
        for (rflags, ring, expected) in [
            (0x202, 3, ShadowSource::Other),
            (0x3202, 3, ShadowSource::Sti),
            (0x1202, 1, ShadowSource::Sti),
            (0x302, 0, ShadowSource::Other),
            (0x2_3202, 0, ShadowSource::Other),
        ] {
            assert_eq!(source(0xfb, rflags, ring), expected, "{rflags:#x} {ring}");
        }
    }

    #[test]
    fn a_page_in_front_that_is_not_there_is_no_sti() {
        let memory = FakeGuestMemory::new(0x3000);
        memory.poke(RIP - 1, &[0xfb]);
        memory.evict(RIP - 1);
        let code = SegmentRegister { selector: 8, attributes: 0xc09b, limit: u32::MAX, base: 0 };
        let regs = Regs { rip: RIP, rflags: 0x202, ..Regs::default() };
        assert_eq!(
            source_of_shadow(&memory, &CpuState::flat(code, code), &regs),
            ShadowSource::Other
        );
    }
}
