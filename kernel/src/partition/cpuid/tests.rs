use super::*;

/// A host that has everything, and more.
fn generous(leaf: u32, subleaf: u32) -> CpuidLeaf {
    match (leaf, subleaf) {
        (0, _) => CpuidLeaf::new(0x20, 0x756e_6547, 0x6c65_746e, 0x4965_6e69),
        (0xd, 2) => CpuidLeaf::new(256, 576, 0, 0),
        (0xd, _) => CpuidLeaf::new(0xff, 2696, 2696, 0),
        (0x8000_0000, _) => CpuidLeaf::new(0x8000_0021, 1, 2, 3),
        (0x8000_0008, _) => CpuidLeaf::new(0x3934, u32::MAX, u32::MAX, u32::MAX),
        _ => CpuidLeaf::new(u32::MAX, u32::MAX, u32::MAX, u32::MAX),
    }
}

fn guest(cr4: u64) -> GuestView {
    GuestView { cr4, xcr0: 7, apic: ApicMode::XApic, rate: TscRate::new(2_500_000_000) }
}

fn ask(leaf: u32, subleaf: u32) -> CpuidLeaf {
    answer(leaf, subleaf, &generous, &guest(0))
}

#[test]
fn the_vendor_stays_and_the_last_leaves_are_ours() {
    assert_eq!(ask(0, 0), CpuidLeaf::new(0xd, 0x756e_6547, 0x6c65_746e, 0x4965_6e69));
    assert_eq!(ask(0x8000_0000, 0).eax, 0x8000_0008);
}

#[test]
fn what_is_not_virtualised_is_hidden_on_a_host_that_has_it() {
    let (one, seven, extended) = (ask(1, 0), ask(7, 0), ask(0x8000_0001, 0));
    for (name, register, bit) in [
        ("MONITOR", one.ecx, 3),
        ("VMX", one.ecx, 5),
        ("PDCM", one.ecx, 15),
        ("PCID", one.ecx, 17),
        ("OSXSAVE", one.ecx, 27),
        ("DS", one.edx, 21),
        ("HTT", one.edx, 28),
        ("INVPCID", seven.ebx, 10),
        ("AVX512F", seven.ebx, 16),
        ("PKU", seven.ecx, 3),
        ("LA57", seven.ecx, 16),
        ("RDPID", seven.ecx, 22),
        ("SPEC_CTRL", seven.edx, 26),
        ("ARCH_CAPABILITIES", seven.edx, 29),
        ("SVM", extended.ecx, 2),
        ("TOPOEXT", extended.ecx, 22),
        ("FFXSR", extended.edx, 25),
        ("RDTSCP", extended.edx, 27),
    ] {
        assert_eq!(register & (1 << bit), 0, "{name}");
    }
    for leaf in [3, 5, 0xa, 0x14, 0x8000_000a, 0x8000_001d, 0x4000_0002, u32::MAX] {
        assert_eq!(ask(leaf, 0), CpuidLeaf::default(), "{leaf:#x}");
    }
}

#[test]
fn what_is_emulated_is_there_on_a_host_that_lacks_it() {
    let poor = |_, _| CpuidLeaf::default();
    let one = answer(1, 0, &poor, &guest(CR4_OSXSAVE));
    assert_eq!(one.ecx, masks::EMULATED, "and no OSXSAVE without XSAVE");
    assert_eq!(one.ebx >> 16, 1);
    assert_eq!(answer(7, 0, &poor, &guest(0)), CpuidLeaf::new(0, masks::TSC_ADJUST, 0, 0));
    assert_eq!(answer(6, 0, &poor, &guest(0)).eax, 4);
    assert_eq!(answer(0xd, 0, &poor, &guest(0)), CpuidLeaf::default());
}

#[test]
fn the_apic_is_announced_exactly_while_it_is_on() {
    for (apic, expected) in
        [(ApicMode::Disabled, 0), (ApicMode::XApic, masks::APIC), (ApicMode::X2Apic, masks::APIC)]
    {
        let view = GuestView { apic, ..guest(0) };
        let ask = |leaf| answer(leaf, 0, &generous, &view).edx & masks::APIC;
        assert_eq!((ask(1), ask(0x8000_0001)), (expected, expected), "{apic:?}");
    }
}

#[test]
fn osxsave_follows_the_guests_cr4() {
    assert_ne!(answer(1, 0, &generous, &guest(CR4_OSXSAVE)).ecx & masks::OSXSAVE, 0);
}

#[test]
fn linux_finds_kvm_and_its_clock() {
    let leaf = ask(HYPERVISOR, 0);
    let text: Vec<u8> =
        [leaf.ebx, leaf.ecx, leaf.edx].iter().flat_map(|r| r.to_le_bytes()).collect();
    assert_eq!((text.as_slice(), leaf.eax), (&b"KVMKVMKVM\0\0\0"[..], HYPERVISOR_FREQUENCIES));
    assert_eq!(ask(HYPERVISOR_FEATURES, 0).eax, 1 << 1 | 1 << 3 | 1 << 24);
    assert_eq!(ask(HYPERVISOR_FREQUENCIES, 0).eax, 2_500_000);
}

#[test]
fn the_xsave_area_has_the_guests_states_and_no_more() {
    assert_eq!(ask(0xd, 0), CpuidLeaf::new(7, 832, 832, 0));
    let sse_only = GuestView { xcr0: 3, ..guest(0) };
    assert_eq!(answer(0xd, 0, &generous, &sse_only), CpuidLeaf::new(7, 576, 832, 0));
    assert_eq!(ask(0xd, 1), CpuidLeaf::new(7, 832, 0, 0), "no XSAVES");
    assert_eq!(ask(0xd, 2), CpuidLeaf::new(256, 576, 0, 0));
    for subleaf in [3, 5, 8, 31, 32, 63, u32::MAX] {
        assert_eq!(ask(0xd, subleaf), CpuidLeaf::default(), "{subleaf}");
    }
}

#[test]
fn xsetbv_takes_only_states_that_fit_together() {
    for (value, allowed) in [
        (1, true),
        (3, true),
        (7, true),
        (0, false),
        (2, false),
        (5, false),
        (15, false),
        (1 << 63 | 7, false),
    ] {
        assert_eq!(xcr0_allowed(value, 0xff), allowed, "{value:#x}");
    }
    assert!(!xcr0_allowed(7, 3), "no AVX on the host");
}

#[test]
fn there_is_one_core_and_addresses_fit_four_levels() {
    assert_eq!((ask(0xb, 0).ebx, ask(0xb, 1).ebx, ask(0xb, 2).ebx), (1, 1, 0));
    assert_eq!(ask(0x8000_0008, 0), CpuidLeaf::new(48 | 48 << 8, 5, 0, 0));
    assert_eq!(ask(4, 0).eax >> 14, 0);
}
