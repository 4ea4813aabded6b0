//! The instructions that test kernels need, one function each: the only inline assembly here.

// UNSAFETY: each function is one instruction that Rust does not have.
#![expect(unsafe_code)]

use core::arch::asm;
use core::sync::atomic::AtomicU64;

/// Writes a byte to a port.
pub fn outb(port: u16, value: u8) {
    // SAFETY: a test kernel owns its machine; a port write does not touch Rust's memory.
    unsafe {
        asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags))
    }
}

/// Writes a dword to a port.
pub fn outl(port: u16, value: u32) {
    // SAFETY: as in `outb`.
    unsafe {
        asm!(
            "out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags)
        )
    }
}

/// Reads a byte from a port.
pub fn inb(port: u16) -> u8 {
    let value;
    // SAFETY: as in `outb`.
    unsafe {
        asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags))
    }
    value
}

/// Reads the time stamp counter after all earlier instructions.
pub fn tsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: changes registers only.
    unsafe {
        asm!(
            "lfence", "rdtsc", out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags)
        )
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Executes CPUID.
pub fn cpuid(leaf: u32, subleaf: u32) -> core::arch::x86_64::CpuidResult {
    core::arch::x86_64::__cpuid_count(leaf, subleaf)
}

/// Executes CPUID with two prefixes that have no effect on it.
pub fn cpuid_prefixed() {
    // SAFETY: changes registers only; RBX, which the compiler keeps for itself, is put back.
    unsafe {
        asm!(
            "mov {rbx}, rbx", ".byte 0x3e, 0x66, 0x0f, 0xa2", "mov rbx, {rbx}",
            rbx = out(reg) _, inout("eax") 0 => _, inout("ecx") 0 => _, out("edx") _, options(
                nomem, nostack, preserves_flags
            )
        )
    }
}

/// Reads a model-specific register. A missing register raises #GP, which fails the test unless it
/// is [expected](crate::trap).
pub fn rdmsr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: changes registers only.
    unsafe {
        asm!(
            "rdmsr", in("ecx") register, out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags)
        )
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// The register must not change how Rust's code runs (paging, segments).
pub unsafe fn wrmsr(register: u32, value: u64) {
    // SAFETY: the caller vouches for the register.
    unsafe {
        asm!(
            "wrmsr", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags)
        )
    }
}

/// Reads CR2, the address of the last page fault.
pub fn cr2() -> u64 {
    let value;
    // SAFETY: changes a register only.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) }
    value
}

/// Enables interrupts, effective after the next instruction.
pub fn sti() {
    // SAFETY: all vectors have a handler (`trap::install` ran first).
    unsafe { asm!("sti", options(nostack)) }
}

/// Disables interrupts.
pub fn cli() {
    // SAFETY: only defers handlers.
    unsafe { asm!("cli", options(nostack)) }
}

/// Enables interrupts for two instructions.
pub fn interrupt_window() {
    // SAFETY: as for `sti`.
    unsafe { asm!("sti", "nop", "nop", "cli", options(nostack)) }
}

/// Sets the task priority class: interrupts up to this class are held pending.
pub fn set_cr8(class: u64) {
    // SAFETY: the task priority only defers interrupts.
    unsafe { asm!("mov cr8, {}", in(reg) class, options(nomem, nostack, preserves_flags)) }
}

/// Reads the task priority class.
pub fn cr8() -> u64 {
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr8", out(reg) value, options(nomem, nostack, preserves_flags)) }
    value
}

/// Reads DR6, the cause of a debug exception, and clears it.
pub fn take_dr6() -> u64 {
    const CLEARED: u64 = 0xffff_0ff0;
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, dr6", out(reg) value, options(nomem, nostack, preserves_flags)) }
    // SAFETY: clears what an exception has set.
    unsafe { asm!("mov dr6, {}", in(reg) CLEARED, options(nomem, nostack, preserves_flags)) }
    value
}

/// Enables interrupts and halts until one comes; then disables them.
pub fn sti_hlt() {
    // SAFETY: as for `sti`; the pair leaves no gap in which a wake-up is lost.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) }
}

/// Enables interrupts with a write to `place` in the STI shadow, and spins until `taken` is not 0,
/// at most `limit` times; returns the number of times that it was 0.
pub fn sti_write_spin(place: *mut u8, taken: &AtomicU64, limit: u64) -> u64 {
    let mut left = limit;
    // SAFETY: as for `sti`; the caller owns the place.
    unsafe {
        asm!(
            "sti", "mov byte ptr [{place}], 1",
            "2: cmp qword ptr [{taken}], 0", "jne 3f", "dec {left}", "jnz 2b",
            "3: cli",
            place = in(reg) place, taken = in(reg) taken.as_ptr(), left = inout(reg) left
        )
    };
    limit - left
}

/// Stops the CPU for good.
pub fn stop() -> ! {
    loop {
        // SAFETY: no code runs afterwards.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
    }
}

/// Loops on one instruction for ever, with interrupts disabled.
pub fn jump_to_itself() -> ! {
    // SAFETY: no code runs afterwards.
    unsafe { asm!("cli", "2: jmp 2b", options(nomem, nostack, noreturn)) }
}

/// Marks a busy wait (PAUSE).
pub fn pause() {
    core::hint::spin_loop();
}

/// Crashes by a triple fault: the CPU finds no handler for a fault nor for the double fault, and
/// the machine resets.
pub fn triple_fault() -> ! {
    let empty = [0_u16; 5];
    // SAFETY: ends this machine, on purpose; the descriptor lives until the fault.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) &empty, options(noreturn)) }
}

/// Resets the machine by the triple fault of kernels that want a reset: a breakpoint without a
/// descriptor table.
pub fn reset_by_triple_fault() -> ! {
    let empty = [0_u16; 5];
    // SAFETY: ends this machine, on purpose; the descriptor lives until the fault.
    unsafe { asm!("lidt [{}]", "int3", "ud2", in(reg) &empty, options(noreturn)) }
}

/// Loads the interrupt descriptor table.
///
/// # Safety
/// `pointer` describes a table that stays valid for ever.
pub(crate) unsafe fn lidt(pointer: &[u8; 10]) {
    // SAFETY: the caller vouches for the table.
    unsafe { asm!("lidt [{}]", in(reg) pointer, options(readonly, nostack, preserves_flags)) }
}

/// Raises #UD; the handler continues behind its two bytes.
pub fn ud2() {
    // SAFETY: the trap's handler decides what follows; registers are restored.
    unsafe { asm!("ud2", options(nostack)) }
}

/// Raises #BP; the trap returns behind the instruction.
pub fn int3() {
    // SAFETY: as for `ud2`.
    unsafe { asm!("int3", options(nostack)) }
}

/// Writes a register of the local APIC in xAPIC mode, at its address after reset.
pub fn write_apic(register: u64, value: u32) {
    const BASE: u64 = 0xfee0_0000;
    // SAFETY: a test kernel owns its machine; the page is no memory of Rust's.
    unsafe { ((BASE + register) as *mut u32).write_volatile(value) }
}

/// Selects a register of the I/O APIC.
pub fn write_io_apic(register: u32) {
    const SELECT: u64 = 0xfec0_0000;
    // SAFETY: as in `write_apic`.
    unsafe { (SELECT as *mut u32).write_volatile(register) }
}

/// Opens an input of the I/O APIC: each rise of it sends `vector` to the first CPU.
pub fn open_io_apic_input(input: u32, vector: u8) {
    const WINDOW: u64 = 0xfec0_0010;
    // Destination first, then the half with the mask.
    for (half, value) in [(1, 0), (0, u32::from(vector))] {
        write_io_apic(0x10 + 2 * input + half);
        // SAFETY: as in `write_apic`.
        unsafe { (WINDOW as *mut u32).write_volatile(value) }
    }
}

/// Writes a register of the local APIC that is an MSR: one in x2APIC mode, the APIC base or the TSC
/// deadline.
pub fn write_x2apic(register: u32, value: u64) {
    // SAFETY: the local APIC changes nothing about how Rust's code runs.
    unsafe { wrmsr(register, value) }
}

/// Ends the interrupt in service.
pub fn write_apic_eoi() {
    const END_OF_INTERRUPT: u64 = 0xb0;
    write_apic(END_OF_INTERRUPT, 0);
}

/// Reads CR0, CR3 and CR4.
pub fn control_registers() -> (u64, u64, u64) {
    let (cr0, cr3, cr4);
    // SAFETY: reads registers only.
    unsafe { asm!("mov {}, cr0", out(reg) cr0, options(nomem, nostack, preserves_flags)) }
    // SAFETY: as above.
    unsafe { asm!("mov {}, cr3", out(reg) cr3, options(nomem, nostack, preserves_flags)) }
    // SAFETY: as above.
    unsafe { asm!("mov {}, cr4", out(reg) cr4, options(nomem, nostack, preserves_flags)) }
    (cr0, cr3, cr4)
}

/// Enables XSAVE with the components `xcr0`.
///
/// # Safety
/// The CPU has XSAVE and these components; code that Rust compiles uses none of their registers.
pub unsafe fn enable_xsave(xcr0: u64) {
    const MONITOR_COPROCESSOR: u64 = 1 << 1;
    const EMULATION_AND_TASK_SWITCHED: u64 = 1 << 2 | 1 << 3;
    const OSFXSR_OSXMMEXCPT_OSXSAVE: u64 = 1 << 9 | 1 << 10 | 1 << 18;
    let (cr0, _, cr4) = control_registers();
    let cr0 = (cr0 | MONITOR_COPROCESSOR) & !EMULATION_AND_TASK_SWITCHED;
    // SAFETY: the caller's promise.
    unsafe { asm!("mov cr0, {}", in(reg) cr0, options(nostack, preserves_flags)) }
    // SAFETY: as above.
    unsafe {
        asm!(
            "mov cr4, {}", in(reg) cr4 | OSFXSR_OSXMMEXCPT_OSXSAVE,
            options(nostack, preserves_flags)
        )
    }
    // SAFETY: as above.
    unsafe {
        asm!(
            "xsetbv", in("ecx") 0, in("eax") xcr0 as u32, in("edx") (xcr0 >> 32) as u32,
            options(nostack, preserves_flags)
        )
    }
}

/// Reads XCR0, after [`enable_xsave`].
pub fn xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a register.
    unsafe {
        asm!(
            "xgetbv", in("ecx") 0, out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags)
        )
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Loads all enabled components, after [`enable_xsave`].
///
/// # Safety
/// `area` is a legal XSAVE area, and code that Rust compiles uses none of the registers.
pub unsafe fn xrstor(area: *const u8) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "xrstor64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX,
            options(readonly, nostack, preserves_flags)
        )
    }
}

/// Saves all enabled components, after [`enable_xsave`].
///
/// # Safety
/// `area` is aligned to 64 bytes and large enough.
pub unsafe fn xsave(area: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "xsave64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX,
            options(nostack, preserves_flags)
        )
    }
}
