//! Why a guest stopped running, in terms that both vendors share.
//!
//! Pure: the back ends decode into these types, and the partition's handlers act on them.

use crate::addr::{Gpa, Gva};

/// The guest's access at the second-level table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageAccess {
    /// A data read.
    Read,
    /// A data write (also a read-modify-write).
    Write,
    /// An instruction fetch.
    Execute,
}

/// Width of a port, register or memory access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessWidth {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Word,
    /// 4 bytes.
    Dword,
    /// 8 bytes (memory only).
    Qword,
}

impl AccessWidth {
    /// Returns the number of bytes.
    pub const fn bytes(self) -> usize {
        match self {
            AccessWidth::Byte => 1,
            AccessWidth::Word => 2,
            AccessWidth::Dword => 4,
            AccessWidth::Qword => 8,
        }
    }
    /// Returns the mask of the bits of this width.
    pub const fn mask(self) -> u64 {
        match self {
            AccessWidth::Byte => 0xff,
            AccessWidth::Word => 0xffff,
            AccessWidth::Dword => 0xffff_ffff,
            AccessWidth::Qword => u64::MAX,
        }
    }
    /// Writes `value` to a register as the CPU does: a byte or word keeps the rest of `old`, a
    /// dword clears the upper half.
    #[inline(always)]
    pub const fn merge(self, old: u64, value: u64) -> u64 {
        match self {
            AccessWidth::Byte | AccessWidth::Word => (old & !self.mask()) | (value & self.mask()),
            AccessWidth::Dword | AccessWidth::Qword => value & self.mask(),
        }
    }

    /// Returns the width of `bytes` bytes.
    pub const fn from_bytes(bytes: usize) -> Option<Self> {
        match bytes {
            1 => Some(AccessWidth::Byte),
            2 => Some(AccessWidth::Word),
            4 => Some(AccessWidth::Dword),
            8 => Some(AccessWidth::Qword),
            _ => None,
        }
    }
}

/// Direction of a port access, seen from the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IoDirection {
    /// IN, INS: the guest reads.
    In,
    /// OUT, OUTS: the guest writes.
    Out,
}

/// One port instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoAccess {
    /// The port number.
    pub port: u16,
    /// Byte, word or dword.
    pub width: AccessWidth,
    /// IN or OUT.
    pub direction: IoDirection,
    /// INS/OUTS: address size, segment and repetition must be decoded from the instruction.
    pub string: bool,
}

/// A MOV to or from a control or debug register that the hypervisor carries out; the other operand
/// is a general register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SystemMove {
    /// MOV to CR0.
    ToCr0,
    /// LMSW, which the exit does not distinguish from a MOV to CR0.
    StatusWord,
    /// MOV to CR4: only bits that CPUID announces can be set.
    ToCr4,
    /// MOV to CR8.
    ToCr8,
    /// MOV to DR7, under its own number or DR5's.
    ToDr7(DebugNumber),
    /// MOV from DR7, under its own number or DR5's.
    FromDr7(DebugNumber),
}

/// The number by which an instruction names DR7.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DebugNumber {
    /// As DR7.
    Own,
    /// As DR5, an alias of DR7 unless CR4.DE is set.
    Alias,
}

/// The cause of a task switch in 32-bit protected mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskSource {
    /// A far CALL of a TSS or a task gate.
    Call,
    /// IRET with NT set: back to the previous task.
    Iret,
    /// A far JMP to a TSS or a task gate.
    Jump,
    /// An interrupt or exception whose IDT entry is a task gate.
    Gate,
}

/// A task switch that the guest has requested. Neither vendor's CPUs carry out task switches in a
/// guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskSwitch {
    /// The cause.
    pub source: TaskSource,
    /// The selector of the new task's TSS.
    pub selector: u16,
}

/// Why a guest stopped running. A closed list: any other exit of a back end is [`VmExit::Unknown`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VmExit {
    /// The second-level table has no usable entry for an access.
    SecondLevelFault {
        /// The guest-physical address.
        gpa: Gpa,
        /// The guest's access.
        access: PageAccess,
        /// The CPU was walking the guest's own page tables.
        during_walk: bool,
        /// The linear address, if the hardware reports it.
        gva: Option<Gva>,
    },
    /// IN, OUT, INS, OUTS.
    Io(IoAccess),
    /// CPUID.
    Cpuid,
    /// RDMSR of the number in ECX.
    ReadMsr,
    /// WRMSR to the number in ECX.
    WriteMsr,
    /// HLT.
    Halt,
    /// XSETBV.
    Xsetbv,
    /// VMCALL or VMMCALL.
    Hypercall,
    /// INVD or WBINVD: the handler only skips it.
    CacheFlush,
    /// A MOV to or from a system register; the general register must be decoded from the
    /// instruction.
    System(SystemMove),
    /// RDPMC of the counter in ECX.
    ReadCounter,
    /// An instruction that CPUID hides (VMX and SVM instructions, MONITOR, INVPCID ...): #UD.
    Undefined,
    /// A host interrupt is pending; it is taken when the hypervisor enables interrupts. A back end
    /// also reports this exit when its longest stay is over, so that the hypervisor looks for
    /// interrupts.
    HostInterrupt,
    /// The guest can take an interrupt now, as requested by
    /// [`crate::virt::Vcpu::request_interrupt_window`].
    InterruptWindow,
    /// The guest can take an NMI now.
    NmiWindow,
    /// SVM under an emulator that forgets shadows: the guest could take an interrupt, but it is in
    /// an interrupt shadow. It has not been entered.
    ShadowedWindow,
    /// Triple fault, or SVM's shutdown.
    TripleFault,
    /// A switch to another task of 32-bit protected mode.
    TaskSwitch(TaskSwitch),
    /// The host CPU has reported a machine check while the guest ran.
    MachineCheck,
    /// SVM with CR0.NE clear: at an x87 instruction the CPU waits for the interrupt that a PC's
    /// board generates for an error.
    FloatingPointFrozen,
    /// The back end has handled the exit itself; run again.
    Handled,
    /// The CPU refused the guest's state at entry. The guest may have caused it; `code` is the
    /// vendor's.
    EntryFailed {
        /// VMX: basic exit reason or VM-instruction error. SVM: the exit code.
        code: u64,
    },
    /// An exit that the back end did not request; `code` is the vendor's.
    Unknown {
        /// The vendor's exit code.
        code: u64,
    },
}

impl VmExit {
    /// Whether the exit is for an instruction of the guest, which the hypervisor carries out or
    /// refuses.
    #[inline(always)]
    pub const fn is_instruction(self) -> bool {
        use VmExit::*;
        matches!(
            self,
            Io(_)
                | Cpuid
                | ReadMsr
                | WriteMsr
                | Halt
                | Xsetbv
                | Hypercall
                | CacheFlush
                | ReadCounter
                | Undefined
        )
    }
}

/// The cause of an interrupt shadow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShadowSource {
    /// STI, the byte before the instruction that is in the shadow.
    Sti,
    /// MOV SS or POP SS, or an unknown cause.
    Other,
}

/// Kind of an injected event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InjectionKind {
    /// A maskable external interrupt.
    Interrupt,
    /// The non-maskable interrupt.
    Nmi,
    /// A hardware exception (faults and traps of the guest's own instructions).
    Exception,
}

/// An event to deliver to the guest at its next entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InjectedEvent {
    /// The kind.
    pub kind: InjectionKind,
    /// IDT vector.
    pub vector: u8,
    /// Error code, for the exceptions that have one.
    pub error_code: Option<u32>,
}

impl InjectedEvent {
    /// External interrupt `vector`.
    pub const fn interrupt(vector: u8) -> Self {
        Self { kind: InjectionKind::Interrupt, vector, error_code: None }
    }
    /// The NMI.
    pub const fn nmi() -> Self {
        Self { kind: InjectionKind::Nmi, vector: 2, error_code: None }
    }
    /// #DB; DR6 has the cause.
    pub const fn debug() -> Self {
        Self { kind: InjectionKind::Exception, vector: 1, error_code: None }
    }
    /// #UD.
    pub const fn invalid_opcode() -> Self {
        Self { kind: InjectionKind::Exception, vector: 6, error_code: None }
    }
    /// #GP(0).
    pub const fn general_protection() -> Self {
        Self { kind: InjectionKind::Exception, vector: 13, error_code: Some(0) }
    }
    /// #MF: an x87 instruction reports the error of an earlier one.
    pub const fn floating_point() -> Self {
        Self { kind: InjectionKind::Exception, vector: 16, error_code: None }
    }
    /// #PF with `error_code`; the caller sets CR2.
    pub const fn page_fault(error_code: u32) -> Self {
        Self { kind: InjectionKind::Exception, vector: 14, error_code: Some(error_code) }
    }
    /// Whether the event is a fault: the pushed RFLAGS then has RF set, so that no instruction
    /// breakpoint matches the repeated instruction. SDM 3B "Instruction-Breakpoint Exception
    /// Condition".
    pub const fn is_fault(&self) -> bool {
        const DEBUG_NMI_BREAKPOINT_OVERFLOW: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4;
        const DOUBLE_FAULT_AND_MACHINE_CHECK: u32 = 1 << 8 | 1 << 18;
        let others = DEBUG_NMI_BREAKPOINT_OVERFLOW | DOUBLE_FAULT_AND_MACHINE_CHECK;
        matches!(self.kind, InjectionKind::Exception)
            && self.vector < 32
            && others >> self.vector & 1 == 0
    }
    /// #AC(0).
    pub const fn alignment_check() -> Self {
        Self { kind: InjectionKind::Exception, vector: 17, error_code: Some(0) }
    }
}
