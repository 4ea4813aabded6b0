//! EXITINFO1 and EXITINFO2 as words with fields, named as in the manual. Pure.
//!
//! A field that the manual reserves has no name and keeps its value.

use bitfield_struct::bitfield;

/// EXITINFO1 of IOIO: APM 2 "IOIO Intercepts".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PortInfo {
    /// IN, not OUT.
    pub input: bool,
    __: bool,
    pub string: bool,
    pub repeated: bool,
    /// SZ8, SZ16 and SZ32: one bit each. As wide as the word, so that the short way needs no
    /// instruction to narrow it.
    #[bits(3)]
    pub size: u64,
    /// A16, A32 and A64: one bit each.
    #[bits(3)]
    pub address_size: u8,
    #[bits(3)]
    pub segment: u8,
    #[bits(3)]
    __: u8,
    pub port: u16,
    __: u32,
}

/// EXITINFO1 of a nested page fault: APM 2 "Nested versus Guest Page Faults".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct NestedFaultInfo {
    pub present: bool,
    pub write: bool,
    pub user: bool,
    pub reserved_bit: bool,
    pub fetch: bool,
    __: bool,
    pub shadow_stack: bool,
    #[bits(25)]
    __: u32,
    /// The fault occurred at the access's final address.
    pub final_address: bool,
    /// The fault occurred while the CPU walked the guest's tables.
    pub table_walk: bool,
    #[bits(3)]
    __: u8,
    pub supervisor_shadow_stack: bool,
    #[bits(26)]
    __: u32,
}

/// EXITINFO2 of a task switch: APM 2 "Miscellaneous Intercepts". EXITINFO1 has the selector.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct TaskSwitchInfo {
    pub error_code: u32,
    #[bits(4)]
    __: u8,
    pub iret: bool,
    __: bool,
    pub jump: bool,
    #[bits(5)]
    __: u8,
    pub has_error_code: bool,
    #[bits(3)]
    __: u8,
    pub resume_flag: bool,
    #[bits(15)]
    __: u16,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::word_layout::assert_field;

    #[test]
    fn port_accesses_have_the_manuals_bits() {
        use PortInfo as Word;
        assert_field(0x1u64, true, Word::with_input, Word::input);
        assert_field(0x4u64, true, Word::with_string, Word::string);
        assert_field(0x8u64, true, Word::with_repeated, Word::repeated);
        assert_field(0x70u64, 7, Word::with_size, Word::size);
        assert_field(0x380u64, 7, Word::with_address_size, Word::address_size);
        assert_field(0x1c00u64, 7, Word::with_segment, Word::segment);
        assert_field(0xffff_0000u64, u16::MAX, Word::with_port, Word::port);
    }

    #[test]
    fn nested_page_faults_have_the_manuals_bits() {
        use NestedFaultInfo as Word;
        let bit = |n: u32, with, get| assert_field::<u64, Word, bool>(1 << n, true, with, get);
        bit(0, Word::with_present, Word::present);
        bit(1, Word::with_write, Word::write);
        bit(2, Word::with_user, Word::user);
        bit(3, Word::with_reserved_bit, Word::reserved_bit);
        bit(4, Word::with_fetch, Word::fetch);
        bit(6, Word::with_shadow_stack, Word::shadow_stack);
        bit(32, Word::with_final_address, Word::final_address);
        bit(33, Word::with_table_walk, Word::table_walk);
        bit(37, Word::with_supervisor_shadow_stack, Word::supervisor_shadow_stack);
    }

    #[test]
    fn task_switches_have_the_manuals_bits() {
        use TaskSwitchInfo as Word;
        let bit = |n: u32, with, get| assert_field::<u64, Word, bool>(1 << n, true, with, get);
        assert_field(0xffff_ffffu64, u32::MAX, Word::with_error_code, Word::error_code);
        bit(36, Word::with_iret, Word::iret);
        bit(38, Word::with_jump, Word::jump);
        bit(44, Word::with_has_error_code, Word::has_error_code);
        bit(48, Word::with_resume_flag, Word::resume_flag);
    }
}
