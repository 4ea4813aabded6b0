//! Machines that go to notes and come back: every field, every cut, every changed bit.

use super::*;
use crate::config::GuestDevices;
use crate::mm::layout::RamLayout;
use crate::partition::devices::clock::{GuestClock, TscRate};
use crate::partition::devices::erst::{command, register};
use crate::partition::devices::map::{ERST_BASE, erst_buffer, port};
use crate::partition::fake::FakeGuestMemory;
use crate::partition::msr::{CpuMsrs, MsrWrite};
use crate::virt::fake::{GuestScript, ScriptedMemory, ScriptedVcpu};
use crate::virt::{AccessWidth, CpuState, InjectedEvent, SegmentRegister, Vcpu};

const MEMORY: u64 = 4 << 20;
const RATE: TscRate = TscRate::new(1_000_000_000);
/// The moment of the suspension, and of the resume on a machine that has just started.
const THEN: Ticks = Ticks::new(90_000_000_000);
const NOW: Ticks = Ticks::new(7_000_000);
const UNIX_NS: u64 = 1_700_000_000_000_000_000;

struct NoMemory;

impl ScriptedMemory for NoMemory {
    fn read(&mut self, _: crate::addr::Hpa, _: crate::addr::Gpa) -> Option<u64> {
        None
    }
    fn write(&mut self, _: crate::addr::Hpa, _: crate::addr::Gpa, _: u64) -> Option<()> {
        None
    }
}

/// The CPUID of the machine that runs the test.
fn host(leaf: u32, subleaf: u32) -> CpuidLeaf {
    cpuid::host(leaf, subleaf)
}

fn layout() -> RamLayout {
    RamLayout::new(MEMORY).unwrap()
}

fn machine() -> VirtualMachine {
    let clock = GuestClock { rate: RATE, start: Ticks::ZERO, unix_ns_at_start: 5 };
    let vcpu = Vcpu::Fake(ScriptedVcpu::new(GuestScript::default(), Box::new(NoMemory)));
    VirtualMachine::new(vcpu, &layout(), clock, &host)
}

fn moment() -> ResumeMoment {
    ResumeMoment { now: NOW, rate: RATE, unix_ns: UNIX_NS }
}

fn read(notes: &[u8]) -> Result<SavedMachine, SavedMachineError> {
    let host = ResumeHost {
        backend: Backend::Svm,
        cpuid: &host,
        xcr0: 7,
        devices: GuestDevices::default(),
        at: moment(),
    };
    SavedMachine::read(notes, &layout(), &host)
}

/// A vCPU's registers, none of which is zero.
fn state() -> CpuState {
    let segment = |n: u16| SegmentRegister {
        selector: n,
        attributes: 0xa09b + u32::from(n),
        limit: 77 + u32::from(n),
        base: 1 << 40 | u64::from(n),
    };
    let mut state = CpuState::flat(segment(8), segment(16));
    (state.ldtr, state.tr) = (segment(24), segment(32));
    (state.gdtr.base, state.gdtr.limit, state.idtr.base, state.idtr.limit) = (1, 2, 3, 4);
    (state.cr0, state.cr2, state.cr3) = (0x8000_0011, 6, 0x7000);
    (state.dr7, state.efer, state.star, state.sfmask) = (0x401, 0x500, 8, 0x4_7700);
    state.lstar = 0xffff_ffff_8000_1000;
    (state.cstar, state.kernel_gs_base, state.sysenter_cs) = (9, 10, 11);
    (state.sysenter_esp, state.sysenter_eip) = (12, 13);
    state
}

/// A machine in whose devices and registers every part differs from that after reset.
fn busy() -> (VirtualMachine, GuestFpu) {
    let mut machine = machine();
    let memory = FakeGuestMemory::new(MEMORY as usize);
    *machine.vcpu.regs_mut() = crate::virt::Regs {
        gpr: core::array::from_fn(|n| n as u64 + 1),
        rip: 0x1234,
        rflags: 0x202,
    };
    machine.vcpu.set_state(&state());
    machine.vcpu.set_cr8(5);
    machine.vcpu.inject(InjectedEvent::page_fault(7));
    let platform = &mut machine.platform;
    for (number, value) in [
        (port::COM1 + 1, 0x03),
        (port::COM1, b'x'),
        (port::COM1 + 7, 0x5a),
        (port::CMOS_INDEX, 0x40),
        (port::CMOS_DATA, 0x77),
        (port::PORT_B, 3),
        (port::PIT + 3, 0x36),
        (port::PIT, 0x10),
        (port::PIT, 0x27),
        (port::TEST_LOG, b'l'),
        (port::FW_CFG, 0x19),
    ] {
        let _ =
            platform.pio_write(number, AccessWidth::Byte, value.into(), &memory, &|| THEN).unwrap();
    }
    platform.console_input(b"typed");
    let write = |platform: &mut Platform, gpa, value| {
        let width = AccessWidth::Dword;
        let _ =
            platform.mmio_write(crate::addr::Gpa::new(gpa), width, value, THEN, &memory).unwrap();
    };
    for (at, value) in [(0xf0, 0x1ff), (0x320, 0x2_0041), (0x3e0, 0b1011), (0x380, 5_000_000)] {
        write(platform, 0xfee0_0000 + at, value);
    }
    for (at, value) in [(0, 0x18), (0x10, 0x31)] {
        write(platform, 0xfec0_0000 + at, value);
    }
    let mut record = [0x11; 200];
    record[..4].copy_from_slice(b"CPER");
    record[20..24].copy_from_slice(&200_u32.to_le_bytes());
    memory.poke(erst_buffer(&layout()).as_u64(), &record);
    for action in [command::BEGIN_WRITE, command::EXECUTE] {
        write(platform, ERST_BASE + register::COMMAND, action);
    }
    let mut registers =
        [(0x2ff, 0xc06), (0x200, 0x1234_5006), (0x10, 1 << 40), (0x4b56_4d01, 0x9001)];
    for (msr, value) in &mut registers {
        let mut cpu = FakeMsrs;
        let write = MsrWrite { msr: *msr, value: *value };
        machine.msrs.write(write, &mut cpu, &mut machine.platform, &memory, THEN).unwrap();
    }
    let mut area = vec![0; 600];
    area[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
    (area[200], area[512]) = (0xee, 3);
    (machine, GuestFpu::of_saved(3, &area, 7).unwrap())
}

struct FakeMsrs;

impl CpuMsrs for FakeMsrs {
    fn efer(&self) -> u64 {
        0
    }
    fn set_efer(&mut self, _: u64) -> Result<(), InjectedEvent> {
        Ok(())
    }
    fn pat(&self) -> u64 {
        0
    }
    fn set_pat(&mut self, _: u64) {}
    fn set_tsc_offset(&mut self, _: u64) {}
}

fn notes(activity: GuestActivity) -> (Vec<u8>, VirtualMachine) {
    let (machine, fpu) = busy();
    (machine.save(Backend::Svm, &fpu, activity, THEN).unwrap(), machine)
}

#[test]
fn a_machine_comes_back_with_every_register_and_device() {
    for activity in [GuestActivity::Runs, GuestActivity::Halts] {
        let (saved, before) = notes(activity);
        let mut after = machine();
        let (fpu, found) = after.take_over(read(&saved).expect("it fits"));
        assert_eq!((found, fpu.xcr0(), fpu.area()[200]), (activity, 3, 0xee));
        assert_eq!(*after.vcpu.regs(), *before.vcpu.regs());
        assert_eq!((after.vcpu.state(), after.vcpu.cr8()), (before.vcpu.state(), 5));
        assert_eq!(after.vcpu.save_events(), before.vcpu.save_events());
        assert!(after.vcpu.event_pending());
        // The notes of what came back are the notes that it came from: no field is lost, and
        // every distance in time is kept.
        let again = after.save(Backend::Svm, &fpu, activity, NOW).unwrap();
        assert_eq!(again, saved);
    }
}

#[test]
fn a_guests_clocks_go_on_where_they_stood() {
    let (saved, mut before) = notes(GuestActivity::Runs);
    let mut after = machine();
    let _ = after.take_over(read(&saved).expect("it fits"));
    let counter = |machine: &VirtualMachine, now| {
        machine.msrs.read_alone(0x10, &machine.platform, || now).unwrap()
    };
    assert_eq!(counter(&after, NOW), counter(&before, THEN));
    let step = Ticks::new(1_000);
    assert_eq!(counter(&after, NOW + step), counter(&before, THEN) + 1_000);
    // The timer had 5 ms to go.
    assert_eq!(after.platform.next_deadline(), Some(NOW + Ticks::new(5_000_000)));
    assert_eq!(before.platform.next_deadline(), Some(THEN + Ticks::new(5_000_000)));
    let (then, now) = (before.platform.clock(), after.platform.clock());
    assert_eq!(now.uptime_ns(NOW), then.uptime_ns(THEN));
    assert_eq!(now.unix_ns(NOW), UNIX_NS, "the time of day is the machine's");
    let timer = |machine: &mut VirtualMachine, now| {
        machine.platform.pio_read(port::PM_TIMER, AccessWidth::Dword, || now)
    };
    assert_eq!(timer(&mut after, NOW), timer(&mut before, THEN));
}

#[test]
fn no_cut_and_no_changed_bit_of_the_notes_does_harm() {
    let (saved, _) = notes(GuestActivity::Runs);
    for len in (0..saved.len() - 4).step_by(97) {
        assert!(read(&saved[..len]).is_err(), "{len}");
    }
    let mut changed = saved.clone();
    for at in (0..changed.len()).step_by(5) {
        changed[at] ^= 1 << (at % 8);
        if let Ok(found) = read(&changed) {
            let mut after = machine();
            let _ = after.take_over(found);
        }
        changed[at] = saved[at];
    }
}

#[test]
fn a_value_that_would_fault_in_the_cpu_is_refused() {
    let with = |change: fn(&mut CpuState)| {
        let (mut machine, fpu) = busy();
        let mut state = state();
        change(&mut state);
        machine.vcpu.set_state(&state);
        let saved = machine.save(Backend::Svm, &fpu, GuestActivity::Runs, THEN).unwrap();
        read(&saved).err()
    };
    assert_eq!(with(|_| {}), None);
    let wrong = Some(SavedMachineError::State(StateError::Field("registers")));
    let changes: [fn(&mut CpuState); 9] = [
        |state| state.lstar = 1 << 47,
        |state| state.cstar = 1 << 63,
        |state| state.kernel_gs_base = 1 << 48,
        |state| state.sfmask = 1 << 32,
        |state| state.dr6 = 1 << 32,
        |state| state.dr7 = 1 << 40,
        |state| state.pat = 2,
        |state| state.efer = 1 << 12,
        |state| state.cr4 = 1 << 63,
    ];
    for (n, change) in changes.into_iter().enumerate() {
        assert_eq!(with(change), wrong, "{n}");
    }
}

#[test]
fn a_machine_with_another_number_of_vcpus_is_refused() {
    let (saved, _) = notes(GuestActivity::Runs);
    let first = StateNote::all(&saved, StateNoteKind::Vcpu).next().unwrap();
    let bytes = 24 + first.len().next_multiple_of(4);
    let two = [&saved[..bytes], &saved[..]].concat();
    assert_eq!(read(&two).err(), Some(SavedMachineError::State(StateError::Vcpus(2))));
    assert!(read(&saved[bytes..]).is_err());
    let mut second = saved.clone();
    second[24 + 4] = 3;
    assert_eq!(read(&second).err(), Some(SavedMachineError::State(StateError::Vcpus(4))));
}

#[test]
fn the_other_back_end_is_refused_with_both_names() {
    let (saved, _) = notes(GuestActivity::Runs);
    let host = ResumeHost {
        backend: Backend::Vmx,
        cpuid: &host,
        xcr0: 7,
        devices: GuestDevices::default(),
        at: moment(),
    };
    let error = SavedMachine::read(&saved, &layout(), &host).err().expect("it is refused");
    assert_eq!(
        error.to_string(),
        "it was suspended on SVM with NPT, this machine has VMX with EPT"
    );
}

#[test]
fn the_notes_are_far_from_filling_their_room() {
    let (saved, _) = notes(GuestActivity::Runs);
    // All records of the store, full queues.
    let most = saved.len() + 8 * 8192 + (16 << 10) + 1024;
    assert!(most < crate::space::layout::NOTES_ROOM as usize / 2, "{most}");
}
