//! Tables of exits, from the manual and from Bochs.

use super::*;

#[derive(Default)]
struct Fields {
    qualification: u64,
    physical: u64,
    linear: u64,
    interruption: u32,
}

impl ExitInformation for Fields {
    fn qualification(&self) -> u64 {
        self.qualification
    }
    fn guest_physical(&self) -> Gpa {
        Gpa::new(self.physical)
    }
    fn guest_linear(&self) -> Gva {
        Gva::new(self.linear)
    }
    fn interruption(&self) -> InterruptionInfo {
        InterruptionInfo::from_bits(self.interruption)
    }
}

/// No field is read: the reason is enough.
struct Nothing;

impl ExitInformation for Nothing {
    fn qualification(&self) -> u64 {
        panic!("not needed for this reason")
    }
    fn guest_physical(&self) -> Gpa {
        panic!("not needed for this reason")
    }
    fn guest_linear(&self) -> Gva {
        panic!("not needed for this reason")
    }
    fn interruption(&self) -> InterruptionInfo {
        panic!("not needed for this reason")
    }
}

fn exit(raw: u32, fields: &impl ExitInformation) -> VmExit {
    let raw = ExitReason::from_raw(raw);
    match plain(raw).map_or_else(|| decode(raw, fields), DecodedExit::Exit) {
        DecodedExit::Exit(exit) => exit,
        other => panic!("{other:?} is the back end's own"),
    }
}

#[test]
fn reasons_that_tell_everything_read_no_other_field() {
    let table = [
        (1, VmExit::HostInterrupt),
        (2, VmExit::TripleFault),
        (7, VmExit::InterruptWindow),
        (8, VmExit::NmiWindow),
        (10, VmExit::Cpuid),
        (11, VmExit::Undefined),
        (12, VmExit::Halt),
        (13, VmExit::CacheFlush),
        (18, VmExit::Hypercall),
        (19, VmExit::Undefined),
        (27, VmExit::Undefined),
        (31, VmExit::ReadMsr),
        (32, VmExit::WriteMsr),
        (36, VmExit::Undefined),
        (39, VmExit::Undefined),
        (50, VmExit::Undefined),
        (52, VmExit::HostInterrupt),
        (53, VmExit::Undefined),
        (54, VmExit::CacheFlush),
        (55, VmExit::Xsetbv),
        (1 << 27 | 10, VmExit::Unknown { code: 1 << 27 | 10 }),
    ];
    for (raw, expected) in table {
        assert_eq!(exit(raw, &Nothing), expected, "reason {raw}");
    }
}

/// How a basic exit reason is handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum VmxExitFate {
    /// Decided by the reason, or by fields that other tests cover.
    Known,
    /// #UD: CPUID hides the instruction.
    Hidden,
    /// None of our controls requests it, or a guest cannot cause it.
    NotAsked,
    /// The manual has no such reason, or it comes only with a failed entry.
    None,
}

/// Every reason of SDM 3D "VMX Basic Exit Reasons", to the end of the edition that
/// `docs/architecture.md` names, and beyond.
#[test]
fn every_exit_reason_has_a_fate() {
    use VmxExitFate::{Hidden, Known, NotAsked};
    let runs = [
        (0..=2, Known),      // exception or NMI, interrupt, triple fault
        (3..=6, NotAsked),   // INIT, SIPI, SMIs
        (7..=10, Known),     // windows, task switch, CPUID
        (11..=11, Hidden),   // GETSEC
        (12..=13, Known),    // HLT, INVD
        (14..=14, NotAsked), // INVLPG
        (15..=15, Known),    // RDPMC
        (16..=16, NotAsked), // RDTSC
        (17..=17, Hidden),   // RSM
        (18..=18, Known),    // VMCALL
        (19..=27, Hidden),   // VMCLEAR to VMXON
        (28..=28, Known),    // control registers
        (29..=29, Known),    // debug registers
        (30..=32, Known),    // ports, MSRs
        (33..=35, VmxExitFate::None),
        (36..=36, Hidden),   // MWAIT
        (37..=37, NotAsked), // monitor trap flag
        (38..=38, VmxExitFate::None),
        (39..=39, Hidden),   // MONITOR
        (40..=40, NotAsked), // PAUSE
        (41..=42, VmxExitFate::None),
        (43..=47, NotAsked), // the APIC's, descriptor tables
        (48..=49, Known),    // EPT
        (50..=51, Hidden),   // INVEPT, RDTSCP
        (52..=52, Known),    // preemption timer
        (53..=53, Hidden),   // INVVPID
        (54..=55, Known),    // WBINVD, XSETBV
        (56..=57, NotAsked), // the APIC's, RDRAND
        (58..=60, Hidden),   // INVPCID, VMFUNC, ENCLS
        (61..=62, NotAsked), // RDSEED, page-modification log
        (63..=65, Hidden),   // XSAVES, XRSTORS, PCONFIG
        (66..=66, NotAsked), // sub-page permissions
        (67..=70, Hidden),   // UMWAIT, TPAUSE, LOADIWKEY, ENCLV
        (71..=71, VmxExitFate::None),
        (72..=73, Hidden),   // ENQCMD, ENQCMDS
        (74..=75, NotAsked), // bus lock, notification window
        (76..=81, Hidden),   // SEAMCALL, TDCALL, RDMSRLIST, WRMSRLIST, URDMSR, UWRMSR
        (82..=127, VmxExitFate::None),
    ];
    let mut next = 0;
    for (reasons, fate) in runs {
        assert_eq!(*reasons.start(), next, "no gap");
        next = reasons.end() + 1;
        reasons.for_each(|reason| assert_eq!(fate_of(reason), fate, "reason {reason}"));
    }
}

/// Returns how the decoder handles a reason. Only the table distinguishes reasons that the manual
/// does not have from those that are not requested.
fn fate_of(reason: u32) -> VmxExitFate {
    let raw = ExitReason::from_raw(reason);
    let fields = Fields { interruption: 0x8000_0312, ..Fields::default() };
    match plain(raw).map_or_else(|| decode(raw, &fields), DecodedExit::Exit) {
        DecodedExit::Exit(VmExit::Undefined) => VmxExitFate::Hidden,
        DecodedExit::Exit(VmExit::Unknown { code }) if code == u64::from(reason) => match reason {
            33..=35 | 38 | 41 | 42 | 71 | 82.. => VmxExitFate::None,
            _ => VmxExitFate::NotAsked,
        },
        _ => VmxExitFate::Known,
    }
}

/// Controls whose exits have no handler are off. A CPU that requires one of them is refused at the
/// start.
#[test]
fn what_has_no_answer_is_not_asked_for() {
    use crate::virt::vmx::controls::{PrimaryControls, SecondaryControls, requests};
    let primary = [
        PrimaryControls::INVLPG_EXITING,
        PrimaryControls::RDTSC_EXITING,
        PrimaryControls::MONITOR_TRAP_FLAG,
        PrimaryControls::PAUSE_EXITING,
        PrimaryControls::TPR_SHADOW,
    ];
    let secondary = [
        SecondaryControls::VIRTUALIZE_APIC_ACCESSES,
        SecondaryControls::DESCRIPTOR_TABLE_EXITING,
        SecondaryControls::RDRAND_EXITING,
        SecondaryControls::RDSEED_EXITING,
        SecondaryControls::ENABLE_PML,
    ];
    primary
        .iter()
        .for_each(|bit| assert_eq!(requests::PRIMARY.off & bit.bits(), bit.bits(), "{bit:?}"));
    secondary
        .iter()
        .for_each(|bit| assert_eq!(requests::SECONDARY.off & bit.bits(), bit.bits(), "{bit:?}"));
}

#[test]
fn task_switches_tell_what_asked_for_them() {
    use TaskSource::{Call, Gate, Iret, Jump};
    for (qualification, source) in
        [(0x18, Call), (0x4000_0018, Iret), (0x8000_0018, Jump), (0xc000_0018, Gate)]
    {
        let found = exit(9, &Fields { qualification, ..Fields::default() });
        assert_eq!(found, VmExit::TaskSwitch(TaskSwitch { source, selector: 0x18 }));
    }
}

#[test]
fn a_machine_check_is_one_in_the_guest_and_at_the_entry() {
    assert_eq!(
        exit(0, &Fields { interruption: 0x8000_0312, ..Fields::default() }),
        VmExit::MachineCheck
    );
    assert_eq!(exit(1 << 31 | 41, &Nothing), VmExit::MachineCheck);
}

#[test]
fn a_failed_entry_is_never_taken_for_an_exit() {
    assert_eq!(decode(ExitReason::from_raw(1 << 31 | 33), &Nothing), DecodedExit::EntryFailed(33));
    assert_eq!(decode(ExitReason::from_raw(1 << 31 | 34), &Nothing), DecodedExit::EntryFailed(34));
    assert!(!ExitReason::from_raw(1 << 31 | 48).may_interrupt_delivery());
}

/// Reads and writes of data count. Fetches, walks of the guest's tables, an unknown linear address
/// and an IRET that ends an NMI do not.
#[test]
fn only_an_instructions_access_to_data_is_one() {
    for (qualification, is_data) in [
        (0x181, true),
        (0x182, true),
        (0x1ab, true),
        (0x184, false),
        (0x081, false),
        (0x082, false),
        (0x001, false),
        (0x1181, false),
    ] {
        assert_eq!(is_data_access(qualification), is_data, "{qualification:#x}");
    }
}

#[test]
fn ept_violations() {
    let fault = |qualification| {
        exit(
            48,
            &Fields {
                qualification,
                physical: 0x1234_5678,
                linear: 0xffff_8000,
                ..Fields::default()
            },
        )
    };
    let expect = |access, during_walk, gva: Option<u64>| VmExit::SecondLevelFault {
        gpa: Gpa::new(0x1234_5678),
        access,
        during_walk,
        gva: gva.map(Gva::new),
    };
    assert_eq!(fault(0x181), expect(PageAccess::Read, false, Some(0xffff_8000)));
    assert_eq!(fault(0x182), expect(PageAccess::Write, false, Some(0xffff_8000)));
    assert_eq!(fault(0x184), expect(PageAccess::Execute, false, Some(0xffff_8000)));
    // Read-modify-write; a write to a read-only page also has the permission bits.
    assert_eq!(fault(0x183), expect(PageAccess::Write, false, Some(0xffff_8000)));
    assert_eq!(fault(0x1aa), expect(PageAccess::Write, false, Some(0xffff_8000)));
    // The guest's own page tables, with A/D bits and without.
    assert_eq!(fault(0x083), expect(PageAccess::Write, true, Some(0xffff_8000)));
    assert_eq!(fault(0x081), expect(PageAccess::Write, true, Some(0xffff_8000)));
    // MOV to CR3 in PAE mode: no linear address; bit 8 then has no meaning.
    assert_eq!(fault(0x001), expect(PageAccess::Read, false, None));
}

#[test]
fn port_instructions() {
    let io = |qualification| match exit(30, &Fields { qualification, ..Fields::default() }) {
        VmExit::Io(access) => (access.port, access.width, access.direction, access.string),
        other => panic!("{other:?}"),
    };
    assert_eq!(io(0x03f8_0000), (0x3f8, AccessWidth::Byte, IoDirection::Out, false));
    assert_eq!(io(0x03fd_0048), (0x3fd, AccessWidth::Byte, IoDirection::In, false));
    assert_eq!(io(0x0cfc_000b), (0xcfc, AccessWidth::Dword, IoDirection::In, false));
    assert_eq!(io(0xffff_0039), (0xffff, AccessWidth::Word, IoDirection::In, true));
}

#[test]
fn control_register_accesses_are_the_back_ends_own() {
    let access = |qualification| {
        decode(ExitReason::from_raw(28), &Fields { qualification, ..Fields::default() })
    };
    assert_eq!(access(0x000), DecodedExit::Control(ControlAccess::WriteCr0(Gpr::Rax)));
    assert_eq!(access(0x304), DecodedExit::Control(ControlAccess::WriteCr4(Gpr::Rbx)));
    assert_eq!(access(0xf08), DecodedExit::Control(ControlAccess::WriteCr8(Gpr::R15)));
    assert_eq!(access(0x418), DecodedExit::Control(ControlAccess::ReadCr8(Gpr::Rsp)));
    assert_eq!(access(0x020), DecodedExit::Exit(VmExit::Unknown { code: 28 }));
}

#[test]
fn exceptions_go_back_to_the_guest_and_nmis_to_the_host() {
    let of = |interruption| {
        decode(ExitReason::from_raw(0), &Fields { interruption, ..Fields::default() })
    };
    assert_eq!(of(0x8000_0202), DecodedExit::HostNmi);
    assert_eq!(of(0x8000_0301), DecodedExit::Reflect(InterruptionInfo::from_bits(0x8000_0301)));
    assert_eq!(of(0x8000_0b11), DecodedExit::Reflect(InterruptionInfo::from_bits(0x8000_0b11)));
    assert_eq!(of(0x8000_0312), DecodedExit::Exit(VmExit::MachineCheck));
    assert_eq!(
        of(0x8000_0b0d),
        DecodedExit::Exit(VmExit::Unknown { code: 0 }),
        "no other is asked for"
    );
    assert_eq!(decode(ExitReason::from_raw(15), &Nothing), DecodedExit::GeneralProtection);
}

#[test]
fn our_own_bad_entry_is_told_with_its_address() {
    let fields = Fields { physical: 0x7000, ..Fields::default() };
    assert_eq!(
        decode(ExitReason::from_raw(49), &fields),
        DecodedExit::Misconfigured(Gpa::new(0x7000))
    );
}

#[test]
fn what_may_interrupt_a_delivery_is_never_plain() {
    for raw in (0..80).map(ExitReason::from_raw).filter(|raw| raw.may_interrupt_delivery()) {
        assert_eq!(plain(raw), None, "{raw:?}");
    }
}

#[test]
fn exits_by_instructions_are_known_and_deliveries_break_only_at_faults() {
    // SDM 3C "Information for VM Exits Due to Instruction Execution": the CPU reports the length.
    for raw in [10, 11, 12, 13, 18, 19, 27, 31, 32, 36, 39, 50, 53, 54, 55] {
        assert!(
            plain(ExitReason::from_raw(raw)).is_some_and(VmExit::is_instruction),
            "reason {raw}"
        );
        assert!(!ExitReason::from_raw(raw).may_interrupt_delivery(), "reason {raw}");
    }
    for raw in [1, 2, 7, 8, 52] {
        assert!(
            !plain(ExitReason::from_raw(raw)).is_some_and(VmExit::is_instruction),
            "reason {raw}"
        );
    }
    for raw in [0, 9, 48, 49] {
        assert!(ExitReason::from_raw(raw).may_interrupt_delivery(), "reason {raw}");
    }
}
