//! The fields of a VMCS: each encoding appears once, typed by its width and by whether it is
//! writable.
//!
//! ```text
//!  31          15 14 13 12 11 10  9              1  0
//! +--------------+-----+--+-----+----------------+---+
//! |       0      |width|0 |type |     index      |acc|     SDM 3C "Encoding of VMCS Fields"
//! +--------------+-----+--+-----+----------------+---+
//!        width 0: 16, 1: 64, 2: 32, 3: natural      type 1: VM-exit information, read only
//! ```
//!
//! Invariants, checked at compile time: an encoding's width is that of its Rust type, and only an
//! [`ExitInfoField`] names a read-only field. An encoding is not a plain number, so it cannot be
//! passed in place of a value.

use core::marker::PhantomData;

/// Width of a VMCS field: the Rust type of the value, and the code in the encoding.
pub trait FieldWidth {
    /// Type of the field's value.
    type Value: Copy;
    /// Bits 14:13 of the encoding.
    const CODE: u32;
    /// Converts the 64 bits that VMREAD returns to a value.
    fn from_raw(raw: u64) -> Self::Value;
    /// Converts a value to the 64 bits for VMWRITE.
    fn to_raw(value: Self::Value) -> u64;
}

macro_rules! width {
    ($(#[$doc:meta])* $name:ident, $value:ty, $code:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(super) enum $name {}

        impl FieldWidth for $name {
            type Value = $value;
            const CODE: u32 = $code;
            fn from_raw(raw: u64) -> $value {
                // The CPU clears the bits beyond the field's width.
                raw as $value
            }
            fn to_raw(value: $value) -> u64 {
                u64::from(value)
            }
        }
    };
}

width!(
    /// 16-bit fields.
    Bits16, u16, 0
);
width!(
    /// 64-bit fields.
    Bits64, u64, 1
);
width!(
    /// 32-bit fields.
    Bits32, u32, 2
);
width!(
    /// Fields as wide as the CPU's registers.
    Natural, u64, 3
);

const TYPE_EXIT_INFORMATION: u32 = 1;

const fn width_code(encoding: u32) -> u32 {
    (encoding >> 13) & 3
}

const fn type_code(encoding: u32) -> u32 {
    (encoding >> 10) & 3
}

/// A field that can be read and written.
#[derive(Clone, Copy, Debug)]
pub struct VmcsField<W: FieldWidth>(u32, PhantomData<W>);

impl<W: FieldWidth> VmcsField<W> {
    const fn new(encoding: u32) -> Self {
        assert!(width_code(encoding) == W::CODE, "VMCS encoding of another width");
        assert!(type_code(encoding) != TYPE_EXIT_INFORMATION, "VMCS field is read only");
        Self(encoding, PhantomData)
    }
    /// Returns the encoding that VMREAD and VMWRITE take.
    pub const fn encoding(self) -> u64 {
        self.0 as u64
    }
}

/// A field of VM-exit information: read only.
#[derive(Clone, Copy, Debug)]
pub struct ExitInfoField<W: FieldWidth>(u32, PhantomData<W>);

impl<W: FieldWidth> ExitInfoField<W> {
    const fn new(encoding: u32) -> Self {
        assert!(width_code(encoding) == W::CODE, "VMCS encoding of another width");
        assert!(type_code(encoding) == TYPE_EXIT_INFORMATION, "VMCS field can be written");
        Self(encoding, PhantomData)
    }
    /// Returns the encoding that VMREAD takes.
    pub const fn encoding(self) -> u64 {
        self.0 as u64
    }
}

/// A segment register's four fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentFields {
    /// Selector.
    pub selector: VmcsField<Bits16>,
    /// Base.
    pub base: VmcsField<Natural>,
    /// Limit.
    pub limit: VmcsField<Bits32>,
    /// Access rights.
    pub attributes: VmcsField<Bits32>,
}

/// The n-th segment in the order that all four groups of encodings share: ES, CS, SS, DS, FS, GS,
/// LDTR, TR. (GDTR and IDTR follow TR in the bases and limits.)
const fn segment(n: u32) -> SegmentFields {
    SegmentFields {
        selector: VmcsField::new(0x0800 + 2 * n),
        base: VmcsField::new(0x6806 + 2 * n),
        limit: VmcsField::new(0x4800 + 2 * n),
        attributes: VmcsField::new(0x4814 + 2 * n),
    }
}

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $kind:ident<$width:ident> = $encoding:literal;)*) => {
        $($(#[$doc])* pub(crate) const $name: $kind<$width> = $kind::new($encoding);)*
    };
}

/// VM-execution, VM-exit and VM-entry control fields.
pub(super) mod control {
    use super::*;
    fields! {
        VPID: VmcsField<Bits16> = 0x0000;
        MSR_BITMAP: VmcsField<Bits64> = 0x2004;
        TSC_OFFSET: VmcsField<Bits64> = 0x2010;
        EPT_POINTER: VmcsField<Bits64> = 0x201a;
        ENCLS_EXITING_BITMAP: VmcsField<Bits64> = 0x202e;
        ENCLV_EXITING_BITMAP: VmcsField<Bits64> = 0x2036;
        PIN_BASED: VmcsField<Bits32> = 0x4000;
        PRIMARY: VmcsField<Bits32> = 0x4002;
        EXCEPTION_BITMAP: VmcsField<Bits32> = 0x4004;
        PAGE_FAULT_MASK: VmcsField<Bits32> = 0x4006;
        PAGE_FAULT_MATCH: VmcsField<Bits32> = 0x4008;
        CR3_TARGET_COUNT: VmcsField<Bits32> = 0x400a;
        EXIT: VmcsField<Bits32> = 0x400c;
        EXIT_MSR_STORE_COUNT: VmcsField<Bits32> = 0x400e;
        EXIT_MSR_LOAD_COUNT: VmcsField<Bits32> = 0x4010;
        ENTRY: VmcsField<Bits32> = 0x4012;
        ENTRY_MSR_LOAD_COUNT: VmcsField<Bits32> = 0x4014;
        ENTRY_INTERRUPTION: VmcsField<Bits32> = 0x4016;
        ENTRY_ERROR_CODE: VmcsField<Bits32> = 0x4018;
        ENTRY_INSTRUCTION_LENGTH: VmcsField<Bits32> = 0x401a;
        SECONDARY: VmcsField<Bits32> = 0x401e;
        CR0_MASK: VmcsField<Natural> = 0x6000;
        CR4_MASK: VmcsField<Natural> = 0x6002;
        CR0_SHADOW: VmcsField<Natural> = 0x6004;
        CR4_SHADOW: VmcsField<Natural> = 0x6006;
    }
}

/// Exit information.
pub(super) mod info {
    use super::*;
    fields! {
        GUEST_PHYSICAL: ExitInfoField<Bits64> = 0x2400;
        INSTRUCTION_ERROR: ExitInfoField<Bits32> = 0x4400;
        REASON: ExitInfoField<Bits32> = 0x4402;
        INTERRUPTION: ExitInfoField<Bits32> = 0x4404;
        INTERRUPTION_ERROR_CODE: ExitInfoField<Bits32> = 0x4406;
        IDT_VECTORING: ExitInfoField<Bits32> = 0x4408;
        IDT_VECTORING_ERROR_CODE: ExitInfoField<Bits32> = 0x440a;
        INSTRUCTION_LENGTH: ExitInfoField<Bits32> = 0x440c;
        QUALIFICATION: ExitInfoField<Natural> = 0x6400;
        GUEST_LINEAR: ExitInfoField<Natural> = 0x640a;
    }
}

/// Guest state.
pub(super) mod guest {
    use super::*;
    pub(crate) const ES: SegmentFields = segment(0);
    pub(crate) const CS: SegmentFields = segment(1);
    pub(crate) const SS: SegmentFields = segment(2);
    pub(crate) const DS: SegmentFields = segment(3);
    pub(crate) const FS: SegmentFields = segment(4);
    pub(crate) const GS: SegmentFields = segment(5);
    pub(crate) const LDTR: SegmentFields = segment(6);
    pub(crate) const TR: SegmentFields = segment(7);
    fields! {
        LINK_POINTER: VmcsField<Bits64> = 0x2800;
        PDPTE0: VmcsField<Bits64> = 0x280a;
        PDPTE1: VmcsField<Bits64> = 0x280c;
        PDPTE2: VmcsField<Bits64> = 0x280e;
        PDPTE3: VmcsField<Bits64> = 0x2810;
        DEBUGCTL: VmcsField<Bits64> = 0x2802;
        PAT: VmcsField<Bits64> = 0x2804;
        EFER: VmcsField<Bits64> = 0x2806;
        GDTR_LIMIT: VmcsField<Bits32> = 0x4810;
        IDTR_LIMIT: VmcsField<Bits32> = 0x4812;
        INTERRUPTIBILITY: VmcsField<Bits32> = 0x4824;
        ACTIVITY: VmcsField<Bits32> = 0x4826;
        SYSENTER_CS: VmcsField<Bits32> = 0x482a;
        PREEMPTION_TIMER: VmcsField<Bits32> = 0x482e;
        CR0: VmcsField<Natural> = 0x6800;
        CR3: VmcsField<Natural> = 0x6802;
        CR4: VmcsField<Natural> = 0x6804;
        GDTR_BASE: VmcsField<Natural> = 0x6816;
        IDTR_BASE: VmcsField<Natural> = 0x6818;
        DR7: VmcsField<Natural> = 0x681a;
        RSP: VmcsField<Natural> = 0x681c;
        RIP: VmcsField<Natural> = 0x681e;
        RFLAGS: VmcsField<Natural> = 0x6820;
        PENDING_DEBUG: VmcsField<Natural> = 0x6822;
        SYSENTER_ESP: VmcsField<Natural> = 0x6824;
        SYSENTER_EIP: VmcsField<Natural> = 0x6826;
    }
}

/// Host state.
pub(super) mod host {
    use super::*;
    fields! {
        ES_SELECTOR: VmcsField<Bits16> = 0x0c00;
        CS_SELECTOR: VmcsField<Bits16> = 0x0c02;
        SS_SELECTOR: VmcsField<Bits16> = 0x0c04;
        DS_SELECTOR: VmcsField<Bits16> = 0x0c06;
        FS_SELECTOR: VmcsField<Bits16> = 0x0c08;
        GS_SELECTOR: VmcsField<Bits16> = 0x0c0a;
        TR_SELECTOR: VmcsField<Bits16> = 0x0c0c;
        PAT: VmcsField<Bits64> = 0x2c00;
        EFER: VmcsField<Bits64> = 0x2c02;
        SYSENTER_CS: VmcsField<Bits32> = 0x4c00;
        CR0: VmcsField<Natural> = 0x6c00;
        CR3: VmcsField<Natural> = 0x6c02;
        CR4: VmcsField<Natural> = 0x6c04;
        FS_BASE: VmcsField<Natural> = 0x6c06;
        GS_BASE: VmcsField<Natural> = 0x6c08;
        TR_BASE: VmcsField<Natural> = 0x6c0a;
        GDTR_BASE: VmcsField<Natural> = 0x6c0c;
        IDTR_BASE: VmcsField<Natural> = 0x6c0e;
        SYSENTER_ESP: VmcsField<Natural> = 0x6c10;
        SYSENTER_EIP: VmcsField<Natural> = 0x6c12;
        RSP: VmcsField<Natural> = 0x6c14;
        RIP: VmcsField<Natural> = 0x6c16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_fields_follow_the_manuals_order() {
        // SDM 3D "Field Encoding in VMCS", the ends of each group.
        assert_eq!(guest::ES.selector.encoding(), 0x0800);
        assert_eq!(guest::TR.selector.encoding(), 0x080e);
        assert_eq!(guest::ES.base.encoding(), 0x6806);
        assert_eq!(guest::TR.base.encoding(), 0x6814);
        assert_eq!(guest::CS.limit.encoding(), 0x4802);
        assert_eq!(guest::TR.limit.encoding(), 0x480e);
        assert_eq!(guest::CS.attributes.encoding(), 0x4816);
        assert_eq!(guest::TR.attributes.encoding(), 0x4822);
    }

    #[test]
    #[should_panic(expected = "another width")]
    fn an_encoding_of_another_width_is_refused() {
        let _ = VmcsField::<Bits32>::new(0x6800);
    }

    #[test]
    #[should_panic(expected = "read only")]
    fn an_exit_information_field_cannot_be_written() {
        let _ = VmcsField::<Bits32>::new(0x4402);
    }
}
