//! The world switch.
//!
//! ```text
//!   GIF=1 IF=0   host registers saved, guest registers loaded
//!   GIF=0 IF=1   VMLOAD guest  VMRUN ... #VMEXIT  VMSAVE guest  VMLOAD host
//!   GIF=1 IF=0   (a host NMI comes here at the earliest)  guest registers saved
//! ```
//!
//! IF is 1 at VMRUN, because with V_INTR_MASKING the host's IF lets a physical interrupt end the
//! guest's stay. GIF is 0 around VMRUN, so that no interrupt is taken while the guest's TR and GS
//! are in the CPU. A physical interrupt that is pending already therefore ends the stay at once.
//! #VMEXIT leaves GIF at 0.
//!
//! Each switch must move FS, GS, TR and LDTR with their hidden parts, since the hypervisor reaches
//! its per-CPU data by GS and its interrupt stacks by TR. VMLOAD is the cheapest way to restore
//! them, and it loads the syscall MSRs as well. Registers in which the guest's values remain are
//! cleared, so that a guest cannot steer the hypervisor's speculation by them.
//!
//! See: APM 2 "VMRUN Instruction", "Global Interrupt Flag, STGI and CLGI Instructions".

// UNSAFETY: leaves Rust to run a guest.
#![expect(unsafe_code)]

use crate::addr::Hpa;
use crate::virt::state::Regs;
use core::mem::offset_of;

core::arch::global_asm!(
    ".global tidepool_svm_run",
    "tidepool_svm_run:", // rdi: registers, rsi: the guest's VMCB, rdx: the host's
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "push rdi",
    "push rdx",
    "mov rax, rsi",
    "mov rcx, [rdi + {gpr} + 8 * 1]",
    "mov rdx, [rdi + {gpr} + 8 * 2]",
    "mov rbx, [rdi + {gpr} + 8 * 3]",
    "mov rbp, [rdi + {gpr} + 8 * 5]",
    "mov rsi, [rdi + {gpr} + 8 * 6]",
    "mov r8,  [rdi + {gpr} + 8 * 8]",
    "mov r9,  [rdi + {gpr} + 8 * 9]",
    "mov r10, [rdi + {gpr} + 8 * 10]",
    "mov r11, [rdi + {gpr} + 8 * 11]",
    "mov r12, [rdi + {gpr} + 8 * 12]",
    "mov r13, [rdi + {gpr} + 8 * 13]",
    "mov r14, [rdi + {gpr} + 8 * 14]",
    "mov r15, [rdi + {gpr} + 8 * 15]",
    "mov rdi, [rdi + {gpr} + 8 * 7]",
    "clgi",
    "sti",
    "vmload rax",
    "vmrun rax",
    "vmsave rax",
    "pop rax",
    "vmload rax",
    "cli",
    "stgi",
    "pop rax",
    "mov [rax + {gpr} + 8 * 1], rcx",
    "mov [rax + {gpr} + 8 * 2], rdx",
    "mov [rax + {gpr} + 8 * 3], rbx",
    "mov [rax + {gpr} + 8 * 5], rbp",
    "mov [rax + {gpr} + 8 * 6], rsi",
    "mov [rax + {gpr} + 8 * 7], rdi",
    "mov [rax + {gpr} + 8 * 8], r8",
    "mov [rax + {gpr} + 8 * 9], r9",
    "mov [rax + {gpr} + 8 * 10], r10",
    "mov [rax + {gpr} + 8 * 11], r11",
    "mov [rax + {gpr} + 8 * 12], r12",
    "mov [rax + {gpr} + 8 * 13], r13",
    "mov [rax + {gpr} + 8 * 14], r14",
    "mov [rax + {gpr} + 8 * 15], r15",
    "xor ecx, ecx",
    "xor edx, edx",
    "xor esi, esi",
    "xor edi, edi",
    "xor r8d, r8d",
    "xor r9d, r9d",
    "xor r10d, r10d",
    "xor r11d, r11d",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    gpr = const offset_of!(Regs, gpr),
);

unsafe extern "C" {
    fn tidepool_svm_run(regs: *mut Regs, guest: u64, host: u64);
}

/// Runs the guest of the VMCB at `guest` until it exits. The VMCB holds RAX, RSP, RIP and RFLAGS,
/// `regs` the rest.
///
/// # Safety
/// 1. EFER.SVME and the host save area are set on this CPU, and interrupts are off.
/// 2. `guest` is a VMCB whose nested page table maps only memory that the guest may access.
/// 3. `host` is a page that VMSAVE has filled on this CPU, and GS, TR and the syscall MSRs have not
///    changed since.
/// 4. No reference to the guest's VMCB is live.
#[inline(always)]
pub(super) unsafe fn run(regs: &mut Regs, guest: Hpa, host: Hpa) {
    // SAFETY: the caller's four promises; the switch preserves the registers that the C calling
    // convention requires.
    unsafe { tidepool_svm_run(regs, guest.as_u64(), host.as_u64()) }
}
