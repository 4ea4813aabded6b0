use super::register::*;
use super::*;
use crate::time::Ticks;

const RATE: TscRate = TscRate::new(1_000_000_000);
const NOW: Ticks = Ticks::ZERO;

fn x2apic() -> LocalApic {
    let mut apic = LocalApic::new(RATE, ApicMode::X2Apic);
    assert_eq!(apic.msr_write(SPURIOUS, 0x1ff, NOW), Ok(ApicOutcome::None));
    apic
}

fn xapic() -> LocalApic {
    let mut apic = LocalApic::new(RATE, ApicMode::XApic);
    assert_eq!(apic.mmio_write(0xf0, 0x1ff, NOW), ApicOutcome::None);
    apic
}

fn edge(vector: u8) -> InterruptMessage {
    InterruptMessage { vector, delivery: DeliveryMode::Fixed, trigger: TriggerMode::Edge }
}

#[test]
fn a_higher_class_interrupts_and_a_lower_one_waits() {
    let mut apic = x2apic();
    apic.accept(edge(0x41));
    apic.acknowledge(0x41);
    apic.accept(edge(0x4f));
    assert_eq!(apic.interrupt(), None, "same class");
    apic.accept(edge(0x51));
    assert_eq!(apic.interrupt(), Some(0x51));
    apic.acknowledge(0x51);
    assert_eq!(apic.msr_write(END_OF_INTERRUPT, 0, NOW), Ok(ApicOutcome::None));
    assert_eq!(apic.msr_write(END_OF_INTERRUPT, 0, NOW), Ok(ApicOutcome::None));
    assert_eq!(apic.interrupt(), Some(0x4f));
}

#[test]
fn the_task_priority_holds_interrupts_back() {
    let mut apic = x2apic();
    apic.accept(edge(0x41));
    apic.set_cr8(4);
    assert_eq!((apic.interrupt(), apic.msr_read(TASK_PRIORITY, NOW)), (None, Ok(0x40)));
    apic.set_cr8(3);
    assert_eq!(apic.interrupt(), Some(0x41));
}

#[test]
fn only_level_interrupts_tell_the_ioapic_of_their_end() {
    let mut apic = xapic();
    apic.accept(InterruptMessage { trigger: TriggerMode::Level, ..edge(0x60) });
    apic.acknowledge(0x60);
    assert_eq!(apic.mmio_write(0xb0, 0, NOW), ApicOutcome::EndOfInterrupt(0x60));
    apic.accept(edge(0x60));
    apic.acknowledge(0x60);
    assert_eq!(apic.mmio_write(0xb0, 0, NOW), ApicOutcome::None);
    assert_eq!(apic.mmio_write(0xb0, 0, NOW), ApicOutcome::None, "an EOI without an interrupt");
}

#[test]
fn x2apic_refuses_what_the_manual_says() {
    let mut apic = x2apic();
    for register in [DESTINATION_FORMAT, COMMAND_HIGH, 0x00, 0x29, 0xff] {
        assert_eq!(apic.msr_read(register, NOW), Err(ApicAccessError), "{register:#x}");
    }
    for (register, value) in [
        (ID, 0),
        (ERROR_STATUS, 1),
        (END_OF_INTERRUPT, 1),
        (IN_SERVICE, 0),
        (SPURIOUS, 1 << 32),
        (SELF_IPI, 256),
    ] {
        assert_eq!(apic.msr_write(register, value, NOW), Err(ApicAccessError), "{register:#x}");
    }
    assert_eq!(xapic().msr_read(ID, NOW), Err(ApicAccessError), "not in xAPIC mode");
    assert_eq!(apic.mmio_read(0x20, NOW), u32::MAX, "no memory in x2APIC mode");
}

#[test]
fn mode_changes_follow_the_state_diagram() {
    let base = |bits: u64| LAPIC_BASE | APIC_BASE_BSP | bits;
    let mut apic = LocalApic::new(RATE, ApicMode::XApic);
    assert_eq!(apic.set_base_msr(base(APIC_BASE_EXTD)), Err(ApicAccessError));
    assert_eq!(
        apic.set_base_msr(base(APIC_BASE_ENABLE | 1)),
        Err(ApicAccessError),
        "a reserved bit"
    );
    assert_eq!(apic.set_base_msr(base(APIC_BASE_ENABLE | APIC_BASE_EXTD)), Ok(()));
    assert_eq!(apic.set_base_msr(base(APIC_BASE_ENABLE)), Err(ApicAccessError));
    assert_eq!(apic.base_msr(), 0xfee0_0d00);
    assert_eq!(apic.set_base_msr(base(0)), Ok(()));
    assert_eq!(apic.set_base_msr(base(APIC_BASE_ENABLE | APIC_BASE_EXTD)), Err(ApicAccessError));
    assert_eq!(apic.set_base_msr(base(APIC_BASE_ENABLE)), Ok(()));
}

#[test]
fn the_base_moves_and_stays_where_a_write_is_refused() {
    let mut apic = LocalApic::new(RATE, ApicMode::XApic);
    assert_eq!(apic.set_base_msr(0xfed4_0000 | APIC_BASE_ENABLE), Ok(()));
    assert_eq!((apic.base(), apic.base_msr()), (0xfed4_0000, 0xfed4_0900));
    assert_eq!(apic.set_base_msr(LAPIC_BASE | APIC_BASE_EXTD), Err(ApicAccessError));
    assert_eq!(apic.base(), 0xfed4_0000);
    assert_eq!(apic.set_base_msr(LAPIC_BASE), Ok(()));
    assert_eq!((apic.mode(), apic.base_msr()), (ApicMode::Disabled, 0xfee0_0100));
}

#[test]
fn a_message_to_oneself_arrives_and_one_to_others_does_not() {
    let mut apic = x2apic();
    for (command, arrives) in [
        (0x40, true),
        (0x41 | 1 << 18, true),
        (0x42 | 2 << 18, true),
        (0x43 | 3 << 18, false),
        (0x44 | 1 << 32, false),
        (0x45 | ((1 << 32) | (1 << 11)), true),
        (0x46 | ((2 << 32) | (1 << 11)), false),
        (0x47 | (u64::from(u32::MAX) << 32), true),
    ] {
        assert_eq!(apic.msr_write(COMMAND, command, NOW), Ok(ApicOutcome::None));
        assert_eq!(apic.irr.contains(command as u8), arrives, "{command:#x}");
    }
    let command = apic.msr_read(COMMAND, NOW);
    assert_eq!(apic.msr_write(SELF_IPI, 0x99, NOW), Ok(ApicOutcome::None));
    assert_eq!((apic.interrupt(), apic.msr_read(COMMAND, NOW)), (Some(0x99), command));
    assert_eq!(apic.msr_write(SELF_IPI, 0x0f, NOW), Ok(ApicOutcome::None));
    assert_eq!(apic.msr_write(ERROR_STATUS, 0, NOW), Ok(ApicOutcome::None));
    assert_eq!(apic.msr_read(ERROR_STATUS, NOW), Ok(u64::from(ERROR_SEND_ILLEGAL)));
}

#[test]
fn an_nmi_message_waits_until_taken() {
    let mut apic = x2apic();
    assert_eq!(apic.msr_write(COMMAND, 4 << 8 | 1 << 18, NOW), Ok(ApicOutcome::None));
    assert!(apic.nmi_pending() && apic.take_nmi() && !apic.take_nmi());
}

#[test]
fn an_illegal_vector_is_an_error_and_no_interrupt() {
    let mut apic = x2apic();
    assert_eq!(apic.msr_write(LOCAL_VECTOR + 5, 0xfe, NOW), Ok(ApicOutcome::None));
    assert_eq!(apic.msr_write(COMMAND, 0x0f | 1 << 18, NOW), Ok(ApicOutcome::None));
    assert_eq!(apic.interrupt(), Some(0xfe));
    assert_eq!(apic.msr_read(ERROR_STATUS, NOW), Ok(0), "latched by a write only");
    assert_eq!(apic.msr_write(ERROR_STATUS, 0, NOW), Ok(ApicOutcome::None));
    assert_eq!(apic.msr_read(ERROR_STATUS, NOW), Ok(u64::from(ERROR_SEND_ILLEGAL)));
}

#[test]
fn a_disabled_apic_takes_nothing_and_masks_its_table() {
    let mut apic = LocalApic::new(RATE, ApicMode::X2Apic);
    apic.accept(edge(0x80));
    assert_eq!(apic.msr_write(LOCAL_VECTOR, 0x40, NOW), Ok(ApicOutcome::None));
    assert_eq!((apic.interrupt(), apic.msr_read(LOCAL_VECTOR, NOW)), (None, Ok(0x1_0040)));
}

#[test]
fn the_timer_interrupts_at_its_deadline() {
    let mut apic = x2apic();
    assert_eq!(apic.msr_write(LOCAL_VECTOR, 2 << 17 | 0xec, NOW), Ok(ApicOutcome::None));
    apic.set_tsc_deadline(Ticks::new(5000));
    assert_eq!((apic.deadline(), apic.tsc_deadline()), (Some(Ticks::new(5000)), Ticks::new(5000)));
    apic.advance(Ticks::new(4999));
    assert_eq!(apic.interrupt(), None);
    apic.advance(Ticks::new(5000));
    assert_eq!((apic.interrupt(), apic.deadline()), (Some(0xec), None));
}

#[test]
fn the_xapic_timer_counts_down_in_its_page() {
    let mut apic = xapic();
    for (offset, value) in [(0x3e0, 0b1011), (0x320, 0x20), (0x380, 10_000)] {
        assert_eq!(apic.mmio_write(offset, value, NOW), ApicOutcome::None);
    }
    assert_eq!(apic.mmio_read(0x390, Ticks::new(4000)), 6000);
    apic.advance(Ticks::new(10_000));
    assert_eq!(apic.interrupt(), Some(0x20));
}

#[test]
fn no_write_to_any_register_panics() {
    for value in [0, u32::MAX, 0x5a5a_5a5a] {
        for offset in (0..0x1000).step_by(4) {
            let (mut a, mut b) = (xapic(), x2apic());
            let _ = a.mmio_write(offset, value, NOW);
            let _ = a.mmio_read(offset, NOW);
            a.advance(Ticks::MAX);
            let _ = b.msr_write((offset >> 4) as u8, u64::from(value), NOW);
            let _ = b.msr_read((offset >> 4) as u8, NOW);
            b.advance(Ticks::MAX);
        }
    }
}

/// SDM 3A "Local Vector Table": reserved bits and the bits of the APIC itself read as zeros.
#[test]
fn a_guest_writes_only_the_fields_that_an_entry_has() {
    let entries = [0x7_00ff, 0x1_07ff, 0x1_07ff, 0x1_a7ff, 0x1_a7ff, 0x1_00ff];
    for (register, writable) in (LOCAL_VECTOR..).zip(entries) {
        let mut apic = x2apic();
        for bit in (0..32).map(|n| 1 << n) {
            assert_eq!(apic.msr_write(register, bit, NOW), Ok(ApicOutcome::None));
            assert_eq!(apic.msr_read(register, NOW), Ok(bit & writable), "{register:#x} {bit:#x}");
        }
    }
}

/// The halves of xAPIC's command are those of x2APIC's, with the destination at the top.
#[test]
fn a_command_reads_as_it_was_written_but_for_its_status() {
    for command in (0..64).map(|n| 1_u64 << n).chain([0, u64::MAX]) {
        let (mut old, mut new) = (xapic(), x2apic());
        assert_eq!(new.msr_write(COMMAND, command, NOW), Ok(ApicOutcome::None));
        assert_eq!(new.msr_read(COMMAND, NOW), Ok(command & !0x1000));
        assert_eq!(old.mmio_write(0x310, (command >> 32) as u32, NOW), ApicOutcome::None);
        assert_eq!(old.mmio_write(0x300, command as u32, NOW), ApicOutcome::None);
        let halves = (old.mmio_read(0x310, NOW), old.mmio_read(0x300, NOW));
        assert_eq!(halves, ((command >> 32) as u32 & 0xff00_0000, command as u32 & !0x1000));
    }
}
