//! Registers and machine state of a vCPU, in terms that both vendors share.
//!
//! Every exit handler may read and change [`Regs`]; the back ends keep it current. [`CpuState`] is
//! the rest. It is expensive to read, so it is read on request: to start an incarnation, to walk
//! the guest's tables, to write a dump's notes.

/// Number of a general-purpose register in instruction encoding (ModRM, REX).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[expect(missing_docs, reason = "the CPU's names")]
pub enum Gpr {
    Rax = 0,
    Rcx,
    Rdx,
    Rbx,
    Rsp,
    Rbp,
    Rsi,
    Rdi,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
}

impl Gpr {
    /// Returns the register of an encoding; only the low four bits count.
    pub const fn from_number(number: u8) -> Self {
        const ALL: [Gpr; 16] = {
            use Gpr::*;
            [Rax, Rcx, Rdx, Rbx, Rsp, Rbp, Rsi, Rdi, R8, R9, R10, R11, R12, R13, R14, R15]
        };
        ALL[(number & 0xf) as usize]
    }
}

/// General-purpose registers, instruction pointer and flags. `repr(C)`: the world switches use the
/// offsets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Regs {
    /// In encoding order: see [`Gpr`].
    pub gpr: [u64; 16],
    /// RIP.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
}

/// RFLAGS.IF: interrupts are taken.
pub const RFLAGS_INTERRUPT: u64 = 1 << 9;
/// RFLAGS.TF: a debug exception after every instruction.
pub const RFLAGS_TRAP: u64 = 1 << 8;
/// RFLAGS.RF: no instruction breakpoint matches the next instruction.
pub const RFLAGS_RESUME: u64 = 1 << 16;
/// DR6.BS: the cause of the debug exception is a single step.
pub const DR6_SINGLE_STEP: u64 = 1 << 14;

impl Regs {
    /// Reads one register.
    pub const fn get(&self, gpr: Gpr) -> u64 {
        self.gpr[gpr as usize]
    }
    /// Writes one register, all 64 bits.
    pub const fn set(&mut self, gpr: Gpr, value: u64) {
        self.gpr[gpr as usize] = value;
    }
    /// Returns EDX:EAX, as RDMSR, WRMSR and XSETBV use it.
    pub const fn edx_eax(&self) -> u64 {
        (self.get(Gpr::Rdx) << 32) | (self.get(Gpr::Rax) & 0xffff_ffff)
    }
    /// Sets EDX:EAX and clears the upper halves, as RDMSR does.
    pub const fn set_edx_eax(&mut self, value: u64) {
        self.set(Gpr::Rax, value & 0xffff_ffff);
        self.set(Gpr::Rdx, value >> 32);
    }
    /// Returns RFLAGS.TF.
    pub const fn single_steps(&self) -> bool {
        self.rflags & RFLAGS_TRAP != 0
    }
    /// Returns RFLAGS.IF.
    pub const fn interrupts_enabled(&self) -> bool {
        self.rflags & RFLAGS_INTERRUPT != 0
    }
}

/// A segment register with its hidden part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SegmentRegister {
    /// Selector.
    pub selector: u16,
    /// Access rights in VMX's layout (SDM "Guest Register State"): type 3:0, S 4, DPL 6:5, P 7, AVL
    /// 12, L 13, D/B 14, G 15, unusable 16.
    pub attributes: u32,
    /// Limit in bytes, already scaled.
    pub limit: u32,
    /// Base, linear.
    pub base: u64,
}

/// A descriptor-table register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DescriptorTable {
    /// Base, linear.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u16,
}

/// The state of a vCPU except for [`Regs`], the FPU and the emulated devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the CPU's names")]
pub struct CpuState {
    pub cs: SegmentRegister,
    pub ds: SegmentRegister,
    pub es: SegmentRegister,
    pub fs: SegmentRegister,
    pub gs: SegmentRegister,
    pub ss: SegmentRegister,
    pub ldtr: SegmentRegister,
    pub tr: SegmentRegister,
    pub gdtr: DescriptorTable,
    pub idtr: DescriptorTable,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub dr6: u64,
    pub dr7: u64,
    /// As the guest sees it: without SVM's SVME.
    pub efer: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub pat: u64,
}

impl CpuState {
    /// Returns the current privilege level: SS.DPL, as both vendors define it.
    pub const fn cpl(&self) -> u8 {
        ((self.ss.attributes >> 5) & 3) as u8
    }

    /// Makes the base state of flat 64-bit or 32-bit protected mode for the loaders: the reset
    /// state of real mode is never used, because kernels start by a boot protocol.
    pub const fn flat(code: SegmentRegister, data: SegmentRegister) -> Self {
        let none = SegmentRegister { selector: 0, attributes: 1 << 16, limit: 0, base: 0 };
        let tss = SegmentRegister { selector: 0, attributes: 0x8b, limit: 0x67, base: 0 };
        let table = DescriptorTable { base: 0, limit: 0 };
        // As after reset (SDM 3A "IA-32 and Intel 64 Processor States Following Power-up, Reset, or
        // INIT"): so only the guest itself can set an IDTR limit of 0.
        let idtr = DescriptorTable { base: 0, limit: 0xffff };
        Self {
            cs: code,
            ds: data,
            es: data,
            fs: data,
            gs: data,
            ss: data,
            ldtr: none,
            tr: tss,
            gdtr: table,
            idtr,
            cr0: 0x11,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            dr6: 0xffff_0ff0,
            dr7: 0x400,
            efer: 0,
            star: 0,
            lstar: 0,
            cstar: 0,
            sfmask: 0,
            kernel_gs_base: 0,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            pat: 0x0007_0406_0007_0406,
        }
    }
}
