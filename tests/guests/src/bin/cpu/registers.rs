//! Control registers and MSRs: bits that CPUID does not announce are reserved. SDM 3A "Control
//! Registers".

use super::{DONE, PROTECTION, RAX, RCX, RDX, expect, is_amd, try_rdmsr, try_with, try_wrmsr};
use guests::instr::{control_registers, cpuid};

/// MOV CR4, RAX and back; returns the vector of the fault, or that of the end.
fn write_cr4(value: u64) -> u64 {
    let outcome = try_with(&[0x0f, 0x22, 0xe0], &[(RAX, value)]);
    outcome.vector
}

/// Returns the bits that any CPU in long mode accepts, or that CPUID announces.
fn offered_cr4() -> u64 {
    let (one, seven) = (cpuid(1, 0), cpuid(7, 0));
    let bit = |register: u32, from: u32, to: u32| u64::from(register >> from & 1) << to;
    let basic =
        [(1, 0), (1, 1), (4, 2), (2, 3), (3, 4), (6, 5), (7, 6), (13, 7), (24, 9), (25, 10)];
    let basic = basic.iter().fold(1 << 8, |bits, &(from, to)| bits | bit(one.edx, from, to));
    let rest = bit(one.ecx, 6, 14) | bit(one.ecx, 17, 17) | bit(one.ecx, 26, 18);
    let structured = bit(seven.ebx, 0, 16) | bit(seven.ebx, 7, 20) | bit(seven.ebx, 20, 21);
    basic
        | rest
        | structured
        | bit(seven.ecx, 2, 11)
        | bit(seven.ecx, 3, 22)
        | bit(seven.ecx, 7, 23)
}

fn cr4() {
    let (_, _, now) = control_registers();
    let offered = offered_cr4();
    for bit in 0..64 {
        let wanted = if offered >> bit & 1 != 0 { DONE } else { PROTECTION };
        expect(format_args!("CR4 bit {bit} set"), write_cr4(now | 1 << bit), wanted);
        let read = control_registers().2;
        let changed = if wanted == DONE { now | 1 << bit } else { now };
        expect(format_args!("CR4 behind that"), read, changed);
        write_cr4(now);
    }
    expect(format_args!("PAE cleared in long mode"), write_cr4(now & !(1 << 5)), PROTECTION);
}

fn cr0() {
    let (now, _, _) = control_registers();
    let write = |value| try_with(&[0x0f, 0x22, 0xc0], &[(RAX, value)]).vector;
    // QEMU's emulation drops the upper half before the intercept.
    let upper = if is_amd() { None } else { Some(("bit 32", now | 1 << 32)) };
    for (name, value) in [("PE cleared under paging", now & !1), ("NW without CD", now | 1 << 29)]
        .into_iter()
        .chain(upper)
    {
        expect(format_args!("CR0: {name}"), write(value), PROTECTION);
    }
    // LMSW ecx: sets TS, and leaves PE set.
    expect(
        format_args!("LMSW"),
        try_with(&[0x0f, 0x01, 0xf1], &[(RCX, now & 0xe | 8)]).vector,
        DONE,
    );
    expect(format_args!("CR0 behind LMSW"), control_registers().0, now | 8);
    expect(
        format_args!("CLTS"),
        (try_with(&[0x0f, 0x06], &[]).vector, control_registers().0),
        (DONE, now & !8),
    );
    write(now);
    expect(
        format_args!("CR3 with a reserved bit"),
        try_with(&[0x0f, 0x22, 0xd8], &[(RAX, 1 << 62)]).vector,
        PROTECTION,
    );
    for (name, bit) in [("CD", 30), ("WP", 16), ("AM", 18), ("TS", 3), ("NE", 5)] {
        expect(format_args!("CR0: {name} changed"), write(now ^ 1 << bit), DONE);
        expect(format_args!("CR0 behind that"), control_registers().0, now ^ 1 << bit);
        write(now);
    }
    expect(
        format_args!("CR8 = 16"),
        try_with(&[0x44, 0x0f, 0x22, 0xc0], &[(RAX, 16)]).vector,
        PROTECTION,
    );
}

fn efer() {
    const EFER: u32 = 0xc000_0080;
    let Ok(now) = try_rdmsr(EFER) else { return expect(format_args!("EFER reads"), false, true) };
    for bit in (0..64).filter(|bit| ![0, 10, 11].contains(bit)) {
        expect(
            format_args!("EFER bit {bit} changed"),
            try_wrmsr(EFER, now ^ 1 << bit),
            Err(PROTECTION),
        );
    }
    for bit in [0, 11] {
        expect(format_args!("EFER bit {bit} changed"), try_wrmsr(EFER, now ^ 1 << bit), Ok(()));
        expect(format_args!("EFER behind that"), try_rdmsr(EFER), Ok(now ^ 1 << bit));
        expect(format_args!("EFER put back"), try_wrmsr(EFER, now), Ok(()));
    }
}

fn xcr0() {
    const OSXSAVE: u64 = 1 << 18;
    let (_, _, now) = control_registers();
    let write = |register, value: u64| {
        try_with(
            &[0x0f, 0x01, 0xd1],
            &[(RCX, register), (RAX, value & 0xffff_ffff), (RDX, value >> 32)],
        )
        .vector
    };
    expect(format_args!("XSETBV without OSXSAVE"), write(0, 1), super::UNDEFINED);
    if cpuid(1, 0).ecx >> 26 & 1 == 0 {
        return;
    }
    write_cr4(now | OSXSAVE);
    expect(format_args!("OSXSAVE in CPUID"), cpuid(1, 0).ecx >> 27 & 1, 1);
    let leaf = cpuid(0xd, 0);
    let offered = u64::from(leaf.edx) << 32 | u64::from(leaf.eax);
    for bit in (1..64).filter(|bit| offered >> bit & 1 == 0) {
        expect(format_args!("XCR0 bit {bit} set"), write(0, 3 | 1 << bit), PROTECTION);
    }
    for (value, wanted) in [(0, PROTECTION), (2, PROTECTION), (5, PROTECTION), (3, DONE), (1, DONE)]
    {
        expect(format_args!("XCR0 = {value}"), write(0, value), wanted);
    }
    expect(format_args!("XCR1"), write(1, 1), PROTECTION);
    write_cr4(now);
}

fn model_specific() {
    for register in 0xc001_0000..=0xc001_0007 {
        let (read, written) =
            if is_amd() { (Ok(0), Ok(())) } else { (Err(PROTECTION), Err(PROTECTION)) };
        expect(format_args!("MSR {register:#x} read"), try_rdmsr(register), read);
        expect(format_args!("MSR {register:#x} cleared"), try_wrmsr(register, 0), written);
    }
    let known: &[u32] = match is_amd() {
        true => &[
            0xc001_0010,
            0xc001_0015,
            0xc001_001a,
            0xc001_001f,
            0xc001_0055,
            0xc001_0058,
            0xc001_0062,
            0xc001_0114,
            0xc001_1029,
        ],
        false => &[0x2a, 0x34, 0x3a, 0xc1, 0xcd, 0xce, 0x140, 0x186, 0x198, 0x606, 0x611],
    };
    for register in known.iter().chain(&[0x17, 0x8b, 0x179, 0x1a0, 0x1d9, 0x277]) {
        expect(format_args!("MSR {register:#x} reads"), try_rdmsr(*register).is_ok(), true);
    }
    // The guest writes these without an exit, so the CPU itself checks them; QEMU's emulation of
    // SVM does not.
    let judged: &[u32] =
        if is_amd() { &[] } else { &[0xc000_0100, 0xc000_0101, 0xc000_0102, 0xc000_0082] };
    for &register in judged {
        expect(
            format_args!("MSR {register:#x} not canonical"),
            try_wrmsr(register, 0xaaaa << 48),
            Err(PROTECTION),
        );
    }
    for register in [0x480_u32, 0x4b56_4dff, 0xc000_0200, 0xdead_beef] {
        expect(
            format_args!("MSR {register:#x}"),
            (try_rdmsr(register), try_wrmsr(register, 0)),
            (Err(PROTECTION), Err(PROTECTION)),
        );
    }
    for counter in [4, 0x10, 0x4000_0000] {
        expect(
            format_args!("RDPMC {counter:#x}"),
            try_with(&[0x0f, 0x33], &[(RCX, counter)]).vector,
            PROTECTION,
        );
    }
}

fn apic_base() {
    const APIC_BASE: u32 = 0x1b;
    const VERSION: u64 = 0x30;
    const ENABLE: u64 = 1 << 11;
    let announced = || cpuid(1, 0).edx >> 9 & 1;
    let version = |base: u64| {
        // SAFETY: the first 4 GiB are mapped, and the page is no memory of Rust's.
        unsafe { ((base + VERSION) as *const u32).read_volatile() }
    };
    let Ok(base) = try_rdmsr(APIC_BASE) else {
        return expect(format_args!("APIC base reads"), false, true);
    };
    expect(format_args!("the APIC's bit while it is on"), announced(), 1);
    expect(format_args!("the APIC switched off"), try_wrmsr(APIC_BASE, base & !ENABLE), Ok(()));
    expect(format_args!("the APIC's bit while it is off"), announced(), 0);
    expect(format_args!("its registers while it is off"), version(0xfee0_0000), u32::MAX);
    expect(format_args!("the APIC switched on"), try_wrmsr(APIC_BASE, base), Ok(()));
    let there = version(0xfee0_0000);
    expect(
        format_args!("the APIC moved"),
        try_wrmsr(APIC_BASE, 0xfed4_0000 | base & 0xfff),
        Ok(()),
    );
    expect(
        format_args!("its registers there"),
        (version(0xfed4_0000), version(0xfee0_0000)),
        (there, u32::MAX),
    );
    expect(
        format_args!("the APIC moved into RAM"),
        try_wrmsr(APIC_BASE, 0x10_0000 | base & 0xfff),
        Err(PROTECTION),
    );
    expect(format_args!("the APIC moved back"), try_wrmsr(APIC_BASE, base), Ok(()));
}

/// Runs the checks.
pub(crate) fn check() {
    cr4();
    cr0();
    efer();
    xcr0();
    model_specific();
    apic_base();
}
