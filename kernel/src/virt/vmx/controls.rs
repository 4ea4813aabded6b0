//! The control bits of VMX, and how a request becomes a value that this CPU accepts.
//!
//! Each group has a capability MSR with two halves: bits that must be 1 and bits that may be 1. A
//! [`ControlRequest`] lists the bits that must be on, those that must be off, and those that are
//! set if supported. [`adjust`] makes the value, or an error that names the group and the bits.
//! Pure. [`requests`] has the requests and their reasons.

use core::fmt;

use bitflags::bitflags;

macro_rules! control_bits {
    ($(#[$doc:meta])* $name:ident { $($(#[$bit_doc:meta])* $bit:ident = $n:literal;)* }) => {
        bitflags! {
            $(#[$doc])*
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            pub struct $name: u32 { $($(#[$bit_doc])* const $bit = 1 << $n;)* }
        }
    };
}

control_bits!(
    /// SDM 3C "Pin-Based VM-Execution Controls".
    PinControls {
        EXTERNAL_INTERRUPT_EXITING = 0;
        NMI_EXITING = 3;
        VIRTUAL_NMIS = 5;
        PREEMPTION_TIMER = 6;
        POSTED_INTERRUPTS = 7;
    }
);
control_bits!(
    /// SDM 3C "Processor-Based VM-Execution Controls", the primary ones.
    PrimaryControls {
        INTERRUPT_WINDOW_EXITING = 2;
        TSC_OFFSETTING = 3;
        HLT_EXITING = 7;
        INVLPG_EXITING = 9;
        MWAIT_EXITING = 10;
        RDPMC_EXITING = 11;
        RDTSC_EXITING = 12;
        CR3_LOAD_EXITING = 15;
        CR3_STORE_EXITING = 16;
        TERTIARY_CONTROLS = 17;
        CR8_LOAD_EXITING = 19;
        CR8_STORE_EXITING = 20;
        TPR_SHADOW = 21;
        NMI_WINDOW_EXITING = 22;
        MOV_DR_EXITING = 23;
        UNCONDITIONAL_IO_EXITING = 24;
        IO_BITMAPS = 25;
        MONITOR_TRAP_FLAG = 27;
        MSR_BITMAPS = 28;
        MONITOR_EXITING = 29;
        PAUSE_EXITING = 30;
        SECONDARY_CONTROLS = 31;
    }
);
control_bits!(
    /// SDM 3C "Processor-Based VM-Execution Controls", the secondary ones.
    SecondaryControls {
        VIRTUALIZE_APIC_ACCESSES = 0;
        ENABLE_EPT = 1;
        DESCRIPTOR_TABLE_EXITING = 2;
        ENABLE_RDTSCP = 3;
        VIRTUALIZE_X2APIC = 4;
        ENABLE_VPID = 5;
        WBINVD_EXITING = 6;
        UNRESTRICTED_GUEST = 7;
        PAUSE_LOOP_EXITING = 10;
        RDRAND_EXITING = 11;
        ENABLE_INVPCID = 12;
        ENABLE_VM_FUNCTIONS = 13;
        ENCLS_EXITING = 15;
        RDSEED_EXITING = 16;
        ENABLE_PML = 17;
        ENABLE_XSAVES = 20;
        ENCLV_EXITING = 28;
    }
);
control_bits!(
    /// SDM 3C "VM-Exit Controls".
    ExitControls {
        SAVE_DEBUG_CONTROLS = 2;
        HOST_ADDRESS_SPACE_SIZE = 9;
        LOAD_PERF_GLOBAL_CTRL = 12;
        ACKNOWLEDGE_INTERRUPT = 15;
        SAVE_PAT = 18;
        LOAD_PAT = 19;
        SAVE_EFER = 20;
        LOAD_EFER = 21;
        SAVE_PREEMPTION_TIMER = 22;
    }
);
control_bits!(
    /// SDM 3C "VM-Entry Controls".
    EntryControls {
        LOAD_DEBUG_CONTROLS = 2;
        IA32E_MODE_GUEST = 9;
        ENTRY_TO_SMM = 10;
        DEACTIVATE_DUAL_MONITOR = 11;
        LOAD_PERF_GLOBAL_CTRL = 13;
        LOAD_PAT = 14;
        LOAD_EFER = 15;
    }
);

/// A group of controls that has a capability MSR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ControlGroup {
    PinBased,
    Primary,
    Secondary,
    Exit,
    Entry,
}

/// The settings that a capability MSR allows in one group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct AllowedControls {
    /// Bits that must be 1 ("allowed 0-settings": low half of the MSR).
    pub required: u32,
    /// Bits that may be 1 ("allowed 1-settings": high half of the MSR).
    pub permitted: u32,
}

impl AllowedControls {
    /// Parses a capability MSR.
    pub(super) const fn from_msr(raw: u64) -> Self {
        Self { required: raw as u32, permitted: (raw >> 32) as u32 }
    }
    /// Nothing may be set: the group does not exist.
    pub(super) const NONE: Self = Self { required: 0, permitted: 0 };
}

/// The settings that we need in one group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ControlRequest {
    /// Must be 1.
    pub on: u32,
    /// Must be 0.
    pub off: u32,
    /// 1 if the CPU supports it.
    pub optional: u32,
}

/// A request that this CPU does not support.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ControlError {
    /// The group.
    pub group: ControlGroup,
    /// Bits requested to be 1.
    pub requested: u32,
    /// Bits requested to be 1 that this CPU does not support.
    pub forbidden: u32,
    /// Bits requested to be 0 that this CPU requires to be 1.
    pub required: u32,
}

/// Adapts `request` to the settings that the CPU allows.
///
/// # Errors
/// If a bit that must be 1 may not be 1, or a bit that must be 0 may not be 0.
pub(super) const fn adjust(
    group: ControlGroup,
    allowed: AllowedControls,
    request: ControlRequest,
) -> Result<u32, ControlError> {
    let forbidden = request.on & !allowed.permitted;
    let required = request.off & allowed.required;
    if forbidden != 0 || required != 0 {
        return Err(ControlError { group, requested: request.on, forbidden, required });
    }
    Ok(request.on | (request.optional & allowed.permitted) | allowed.required)
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn names(group: ControlGroup, bits: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match group {
                ControlGroup::PinBased => {
                    bitflags::parser::to_writer(&PinControls::from_bits_retain(bits), f)
                }
                ControlGroup::Primary => {
                    bitflags::parser::to_writer(&PrimaryControls::from_bits_retain(bits), f)
                }
                ControlGroup::Secondary => {
                    bitflags::parser::to_writer(&SecondaryControls::from_bits_retain(bits), f)
                }
                ControlGroup::Exit => {
                    bitflags::parser::to_writer(&ExitControls::from_bits_retain(bits), f)
                }
                ControlGroup::Entry => {
                    bitflags::parser::to_writer(&EntryControls::from_bits_retain(bits), f)
                }
            }
        }
        write!(f, "{:?} controls {:#x}:", self.group, self.requested)?;
        if self.forbidden != 0 {
            write!(f, " this CPU lacks ")?;
            names(self.group, self.forbidden, f)?;
        }
        if self.required != 0 {
            write!(f, " this CPU insists on ")?;
            names(self.group, self.required, f)?;
        }
        Ok(())
    }
}

/// Tidepool's request for each group.
pub(super) mod requests {
    use super::*;

    /// Host interrupts and NMIs end the guest's stay. With virtual NMIs the guest has its own NMI
    /// blocking; without them its NMIs could not be delivered reliably (every CPU with EPT has
    /// them). The preemption timer limits a stay even if no interrupt comes: Bochs takes none from
    /// a guest that is entered with IF clear.
    pub(crate) const PIN: ControlRequest = ControlRequest {
        on: PinControls::EXTERNAL_INTERRUPT_EXITING
            .union(PinControls::NMI_EXITING)
            .union(PinControls::VIRTUAL_NMIS)
            .bits(),
        off: PinControls::POSTED_INTERRUPTS.bits(),
        optional: PinControls::PREEMPTION_TIMER.bits(),
    };

    /// All ports are emulated, so there are no I/O bitmaps. CR8 exits, and there is no TPR shadow:
    /// so only the local APIC's model has the task priority, and Linux never writes CR8. With EPT
    /// the guest owns CR3 and INVLPG. MOV to a debug register exits while no breakpoint is enabled:
    /// exits that are answered at once then need no check for breakpoints.
    pub(crate) const PRIMARY: ControlRequest = ControlRequest {
        on: PrimaryControls::HLT_EXITING
            .union(PrimaryControls::TSC_OFFSETTING)
            .union(PrimaryControls::MWAIT_EXITING)
            .union(PrimaryControls::MONITOR_EXITING)
            .union(PrimaryControls::RDPMC_EXITING)
            .union(PrimaryControls::CR8_LOAD_EXITING)
            .union(PrimaryControls::CR8_STORE_EXITING)
            .union(PrimaryControls::UNCONDITIONAL_IO_EXITING)
            .union(PrimaryControls::MOV_DR_EXITING)
            .union(PrimaryControls::MSR_BITMAPS)
            .union(PrimaryControls::SECONDARY_CONTROLS)
            .bits(),
        off: PrimaryControls::INVLPG_EXITING
            .union(PrimaryControls::RDTSC_EXITING)
            .union(PrimaryControls::CR3_LOAD_EXITING)
            .union(PrimaryControls::CR3_STORE_EXITING)
            .union(PrimaryControls::TPR_SHADOW)
            .union(PrimaryControls::IO_BITMAPS)
            .union(PrimaryControls::INTERRUPT_WINDOW_EXITING)
            .union(PrimaryControls::NMI_WINDOW_EXITING)
            .union(PrimaryControls::MONITOR_TRAP_FLAG)
            .union(PrimaryControls::PAUSE_EXITING)
            .bits(),
        optional: 0,
    };

    /// Instructions that CPUID hides are not enabled, so that they raise #UD: RDTSCP and RDPID,
    /// INVPCID, XSAVES, TPAUSE and UMWAIT, PCONFIG. ENCLS and ENCLV cannot be disabled: they exit
    /// on CPUs that have these controls.
    pub(crate) const SECONDARY: ControlRequest = ControlRequest {
        on: SecondaryControls::ENABLE_EPT
            .union(SecondaryControls::ENABLE_VPID)
            .union(SecondaryControls::UNRESTRICTED_GUEST)
            .union(SecondaryControls::WBINVD_EXITING)
            .bits(),
        off: SecondaryControls::ENABLE_VM_FUNCTIONS
            .union(SecondaryControls::ENABLE_XSAVES)
            .union(SecondaryControls::ENABLE_PML)
            .union(SecondaryControls::ENABLE_RDTSCP)
            .union(SecondaryControls::ENABLE_INVPCID)
            .union(SecondaryControls::DESCRIPTOR_TABLE_EXITING)
            .union(SecondaryControls::VIRTUALIZE_APIC_ACCESSES)
            .union(SecondaryControls::RDRAND_EXITING)
            .union(SecondaryControls::RDSEED_EXITING)
            .bits(),
        optional: SecondaryControls::ENCLS_EXITING.union(SecondaryControls::ENCLV_EXITING).bits(),
    };

    /// The preemption timer is not saved, so that each entry starts it afresh from a field that is
    /// written once. Interrupts are not acknowledged at the exit: they stay pending until the
    /// hypervisor enables interrupts.
    pub(crate) const EXIT: ControlRequest = ControlRequest {
        on: ExitControls::SAVE_DEBUG_CONTROLS
            .union(ExitControls::HOST_ADDRESS_SPACE_SIZE)
            .union(ExitControls::SAVE_PAT)
            .union(ExitControls::LOAD_PAT)
            .union(ExitControls::SAVE_EFER)
            .union(ExitControls::LOAD_EFER)
            .bits(),
        off: ExitControls::ACKNOWLEDGE_INTERRUPT
            .union(ExitControls::LOAD_PERF_GLOBAL_CTRL)
            .union(ExitControls::SAVE_PREEMPTION_TIMER)
            .bits(),
        optional: 0,
    };

    /// `IA32E_MODE_GUEST` follows EFER.LMA and is added with the guest's state.
    pub(crate) const ENTRY: ControlRequest = ControlRequest {
        on: EntryControls::LOAD_DEBUG_CONTROLS
            .union(EntryControls::LOAD_PAT)
            .union(EntryControls::LOAD_EFER)
            .bits(),
        off: EntryControls::ENTRY_TO_SMM
            .union(EntryControls::DEACTIVATE_DUAL_MONITOR)
            .union(EntryControls::IA32E_MODE_GUEST)
            .union(EntryControls::LOAD_PERF_GLOBAL_CTRL)
            .bits(),
        optional: 0,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: AllowedControls = AllowedControls { required: 0b0001, permitted: 0b0111 };

    #[test]
    fn required_bits_are_added_and_optional_ones_only_where_permitted() {
        let request = ControlRequest { on: 0b0010, off: 0, optional: 0b1100 };
        assert_eq!(adjust(ControlGroup::PinBased, ALLOWED, request), Ok(0b0111));
    }

    #[test]
    fn a_bit_that_the_cpu_lacks_is_named() {
        let request = ControlRequest {
            on: SecondaryControls::UNRESTRICTED_GUEST.bits(),
            off: 0,
            optional: 0,
        };
        let allowed = AllowedControls::from_msr(0x0000_0022_0000_0000);
        let error = adjust(ControlGroup::Secondary, allowed, request).unwrap_err();
        assert_eq!((error.requested, error.forbidden, error.required), (0x80, 0x80, 0));
        assert_eq!(error.to_string(), "Secondary controls 0x80: this CPU lacks UNRESTRICTED_GUEST");
    }

    #[test]
    fn a_bit_that_the_cpu_insists_on_is_named() {
        let request =
            ControlRequest { on: 0, off: PrimaryControls::CR3_LOAD_EXITING.bits(), optional: 0 };
        let allowed = AllowedControls { required: 0x0401_e172, permitted: u32::MAX };
        let error = adjust(ControlGroup::Primary, allowed, request).unwrap_err();
        assert_eq!((error.forbidden, error.required), (0, 1 << 15));
        assert_eq!(error.to_string(), "Primary controls 0x0: this CPU insists on CR3_LOAD_EXITING");
    }

    #[test]
    fn no_request_wants_a_bit_both_on_and_off() {
        use requests::*;
        for r in [PIN, PRIMARY, SECONDARY, EXIT, ENTRY] {
            assert_eq!((r.on | r.optional) & r.off, 0);
        }
    }
}
