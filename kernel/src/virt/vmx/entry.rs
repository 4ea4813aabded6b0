//! The world switch.
//!
//! ```text
//!  switch(context):            callee-saved, context ─> stack ─> guest's registers ─> VMLAUNCH | VMRESUME
//!  exit:                       guest's registers ─> context ─> RSP, RIP, RFLAGS, reason ─> callee-saved <─ stack
//! ```
//!
//! The first VMREAD proves that a VMCS is current. The other VMREADs cannot fail then, because
//! every CPU has their fields. 56 instructions there and back, besides the VMREADs. HOST_RSP is the
//! stack at the call of `switch`, so an interrupt right after the exit has an intact stack below
//! it; HOST_RSP is written only when it changes. RFLAGS is 2 after an exit: interrupts off,
//! direction up, as the ABI requires. The FPU is not touched: no hypervisor code uses it.
// UNSAFETY: the switch itself.
#![expect(unsafe_code)]

use core::mem::offset_of;

use super::field::{guest, host, info};
use crate::virt::state::{Gpr, Regs};

/// The data that the switch reads and writes. `repr(C)`: the assembly uses the offsets.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct SwitchContext {
    /// The guest's registers. RSP, RIP and RFLAGS are in the VMCS and are copied here at each exit.
    pub regs: Regs,
    /// The value of HOST_RSP in the VMCS.
    host_rsp: u64,
    /// The exit reason, 32 bits; or [`REFUSED`].
    pub reason: u64,
    /// The next instruction to use; an exit makes it [`LaunchState::Launched`].
    pub launch: LaunchState,
}

/// Takes the place of the exit reason if there was no exit: VMfail, with the error in the VMCS.
pub(super) const REFUSED: u64 = u64::MAX;

const _: () = {
    assert!(offset_of!(SwitchContext, regs) == 0);
    assert!(offset_of!(Regs, gpr) == 0);
    assert!(offset_of!(Regs, rip) == 128);
    assert!(offset_of!(Regs, rflags) == 136);
    assert!(Gpr::Rsp as usize == 4 && Gpr::Rdi as usize == 7);
};

/// Whether the VMCS has been launched since it was cleared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u32)]
#[expect(dead_code, reason = "the assembly makes the other")]
pub(super) enum LaunchState {
    /// VMLAUNCH is next.
    #[default]
    Clear = 0,
    /// VMRESUME is next.
    Launched = 1,
}

core::arch::global_asm!(
    ".global tidepool_vmx_switch",
    ".global tidepool_vmx_exit",
    "tidepool_vmx_switch:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "push rdi",
    "cmp rsp, [rdi + {host_rsp}]",
    "je 2f",
    "mov [rdi + {host_rsp}], rsp",
    "mov eax, {HOST_RSP}",
    "vmwrite rax, rsp",
    "jbe 4f",
    "2:",
    "cmp dword ptr [rdi + {launch}], 0",
    "mov rax, [rdi]",
    "mov rcx, [rdi + 8]",
    "mov rdx, [rdi + 16]",
    "mov rbx, [rdi + 24]",
    "mov rbp, [rdi + 40]",
    "mov rsi, [rdi + 48]",
    "mov r8, [rdi + 64]",
    "mov r9, [rdi + 72]",
    "mov r10, [rdi + 80]",
    "mov r11, [rdi + 88]",
    "mov r12, [rdi + 96]",
    "mov r13, [rdi + 104]",
    "mov r14, [rdi + 112]",
    "mov r15, [rdi + 120]",
    "mov rdi, [rdi + 56]",
    "jnz 3f",
    "vmlaunch",
    "jmp 4f",
    "3:",
    "vmresume",
    // VMfail: RSP has not changed, and the context on top of the stack is not needed.
    "4:",
    "pop rdi",
    "mov qword ptr [rdi + {reason}], -1",
    "jmp 5f",
    "tidepool_vmx_exit:",
    "push rdi",
    "mov rdi, [rsp + 8]",
    "mov [rdi], rax",
    "mov [rdi + 8], rcx",
    "mov [rdi + 16], rdx",
    "mov [rdi + 24], rbx",
    "mov [rdi + 40], rbp",
    "mov [rdi + 48], rsi",
    "mov [rdi + 64], r8",
    "mov [rdi + 72], r9",
    "mov [rdi + 80], r10",
    "mov [rdi + 88], r11",
    "mov [rdi + 96], r12",
    "mov [rdi + 104], r13",
    "mov [rdi + 112], r14",
    "mov [rdi + 120], r15",
    "pop qword ptr [rdi + 56]",
    "mov eax, {GUEST_RSP}",
    "vmread [rdi + 32], rax",
    "jbe 4b",
    "mov eax, {GUEST_RIP}",
    "vmread [rdi + {rip}], rax",
    "mov eax, {GUEST_RFLAGS}",
    "vmread [rdi + {rflags}], rax",
    "mov eax, {REASON}",
    "vmread [rdi + {reason}], rax",
    "mov dword ptr [rdi + {launch}], 1",
    "pop rdi",
    "5:",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    rip = const offset_of!(Regs, rip),
    rflags = const offset_of!(Regs, rflags),
    host_rsp = const offset_of!(SwitchContext, host_rsp),
    reason = const offset_of!(SwitchContext, reason),
    launch = const offset_of!(SwitchContext, launch),
    HOST_RSP = const host::RSP.encoding(),
    GUEST_RSP = const guest::RSP.encoding(),
    GUEST_RIP = const guest::RIP.encoding(),
    GUEST_RFLAGS = const guest::RFLAGS.encoding(),
    REASON = const info::REASON.encoding(),
);

unsafe extern "sysv64" {
    fn tidepool_vmx_switch(context: *mut SwitchContext);
    fn tidepool_vmx_exit();
}

/// Returns the address at which exits continue.
pub(super) fn exit_address() -> u64 {
    tidepool_vmx_exit as *const () as u64
}

/// Runs the guest of the current VMCS until its next exit.
///
/// # Safety
/// 1. The current VMCS is set up completely, its host state is this CPU's, and it is loaded on this
///    CPU.
/// 2. `context` belongs to it: its HOST_RSP and launch state are those of the VMCS.
/// 3. The second-level table gives the guest access only to its own memory.
#[inline(always)]
pub(super) unsafe fn switch(context: &mut SwitchContext) {
    // SAFETY: the caller's promises.
    unsafe { tidepool_vmx_switch(context) }
}
