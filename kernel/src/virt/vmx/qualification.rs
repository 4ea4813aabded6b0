//! The exit qualifications as words with fields, named as in the manual. Pure.
//!
//! SDM 3C "Basic VM-Exit Information". A field that the manual reserves has no name and keeps its
//! value.

use bitfield_struct::bitfield;

/// "Exit Qualification for EPT Violations".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct EptQualification {
    pub read: bool,
    pub write: bool,
    pub fetch: bool,
    pub readable: bool,
    pub writable: bool,
    pub executable: bool,
    pub user_executable: bool,
    /// The guest-linear-address field is valid.
    pub linear_valid: bool,
    /// With a valid linear address: the access is to its translation, not to a page table.
    pub translated: bool,
    pub user_linear: bool,
    pub writable_linear: bool,
    pub execute_disabled_linear: bool,
    /// The IRET that was executed had already unblocked NMIs.
    pub nmi_unblocked_by_iret: bool,
    pub shadow_stack: bool,
    pub supervisor_shadow_stack: bool,
    pub paging_verification: bool,
    pub asynchronous: bool,
    #[bits(47)]
    __: u64,
}

/// "Exit Qualification for I/O Instructions".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PortQualification {
    /// 0, 1 and 3: one, two and four bytes. As wide as the word, so that the short way needs no
    /// instruction to narrow it.
    #[bits(3)]
    pub size: u64,
    /// IN, not OUT.
    pub input: bool,
    pub string: bool,
    pub repeated: bool,
    pub immediate: bool,
    #[bits(9)]
    __: u16,
    pub port: u16,
    __: u32,
}

/// "Exit Qualification for Task Switches".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct TaskQualification {
    pub selector: u16,
    #[bits(14)]
    __: u16,
    /// 0 to 3: CALL, IRET, JMP, and a task gate in the IDT.
    #[bits(2)]
    pub source: u8,
    __: u32,
}

/// "Exit Qualification for Control-Register Accesses".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ControlQualification {
    /// The control register's number.
    #[bits(4)]
    pub register: u8,
    /// 0 to 3: to it, from it, CLTS, LMSW.
    #[bits(2)]
    pub access: u8,
    pub lmsw_memory: bool,
    __: bool,
    /// The general-purpose register's number.
    #[bits(4)]
    pub operand: u8,
    #[bits(4)]
    __: u8,
    pub lmsw_source: u16,
    __: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::word_layout::assert_field;

    #[test]
    fn ept_violations_have_the_manuals_bits() {
        use EptQualification as Word;
        let bit = |n: u32, with, get| assert_field::<u64, Word, bool>(1 << n, true, with, get);
        bit(0, Word::with_read, Word::read);
        bit(1, Word::with_write, Word::write);
        bit(2, Word::with_fetch, Word::fetch);
        bit(3, Word::with_readable, Word::readable);
        bit(4, Word::with_writable, Word::writable);
        bit(5, Word::with_executable, Word::executable);
        bit(6, Word::with_user_executable, Word::user_executable);
        bit(7, Word::with_linear_valid, Word::linear_valid);
        bit(8, Word::with_translated, Word::translated);
        bit(9, Word::with_user_linear, Word::user_linear);
        bit(10, Word::with_writable_linear, Word::writable_linear);
        bit(11, Word::with_execute_disabled_linear, Word::execute_disabled_linear);
        bit(12, Word::with_nmi_unblocked_by_iret, Word::nmi_unblocked_by_iret);
        bit(13, Word::with_shadow_stack, Word::shadow_stack);
        bit(14, Word::with_supervisor_shadow_stack, Word::supervisor_shadow_stack);
        bit(15, Word::with_paging_verification, Word::paging_verification);
        bit(16, Word::with_asynchronous, Word::asynchronous);
    }

    #[test]
    fn port_instructions_have_the_manuals_bits() {
        use PortQualification as Word;
        assert_field(0x7u64, 7, Word::with_size, Word::size);
        assert_field(0x8u64, true, Word::with_input, Word::input);
        assert_field(0x10u64, true, Word::with_string, Word::string);
        assert_field(0x20u64, true, Word::with_repeated, Word::repeated);
        assert_field(0x40u64, true, Word::with_immediate, Word::immediate);
        assert_field(0xffff_0000u64, u16::MAX, Word::with_port, Word::port);
    }

    #[test]
    fn task_switches_have_the_manuals_bits() {
        use TaskQualification as Word;
        assert_field(0xffffu64, u16::MAX, Word::with_selector, Word::selector);
        assert_field(0xc000_0000u64, 3, Word::with_source, Word::source);
    }

    #[test]
    fn control_register_accesses_have_the_manuals_bits() {
        use ControlQualification as Word;
        assert_field(0xfu64, 15, Word::with_register, Word::register);
        assert_field(0x30u64, 3, Word::with_access, Word::access);
        assert_field(0x40u64, true, Word::with_lmsw_memory, Word::lmsw_memory);
        assert_field(0xf00u64, 15, Word::with_operand, Word::operand);
        assert_field(0xffff_0000u64, u16::MAX, Word::with_lmsw_source, Word::lmsw_source);
    }
}
