//! Carries out a plain move at a device's register that needs no guest memory: as
//! [`mmio`](super::mmio) does, but on the vCPU's own registers.

use crate::addr::Gpa;
use crate::partition::decode::SourceOperand;
use crate::partition::decode::plain::{MoveDirection, PlainMove};
use crate::partition::devices::{DeviceEffect, Platform};
use crate::time::Ticks;
use crate::virt::VcpuRegisters;

/// Carries out `plain`; its access to `gpa` has exited. `None` if the device needs guest memory for
/// it; then nothing has happened.
#[inline(always)]
pub fn plain_mmio(
    plain: &PlainMove,
    vcpu: &mut impl VcpuRegisters,
    platform: &mut Platform,
    gpa: Gpa,
    now: Ticks,
) -> Option<DeviceEffect> {
    match plain.direction {
        MoveDirection::Store(source) => {
            let value = match source {
                SourceOperand::Register(register) => vcpu.regs().get(register.gpr),
                SourceOperand::Immediate(value) => value,
            };
            platform.mmio_write_alone(gpa, plain.width, value & plain.width.mask(), now)
        }
        MoveDirection::Load(register) => {
            let value = platform.mmio_read(gpa, plain.width, now);
            vcpu.set(register.gpr, plain.width.merge(vcpu.regs().get(register.gpr), value));
            Some(DeviceEffect::None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::layout::RamLayout;
    use crate::partition::decode::plain::plain_move;
    use crate::partition::decode::{CodeSize, decode};
    use crate::partition::devices::clock::{GuestClock, TscRate};
    use crate::partition::devices::lapic::ApicMode;
    use crate::partition::devices::map::{ERST_BASE, IOAPIC_BASE, LAPIC_BASE};
    use crate::partition::emulate::{BreakpointWatch, EmulationContext, EmulationOutcome, mmio};
    use crate::partition::fake::{FakeGuestMemory, FakeVcpu};
    use crate::virt::{AccessWidth, CpuState, Gpr};

    const NOW: Ticks = Ticks::new(1_000_000);

    fn platform() -> Platform {
        let layout = RamLayout::new(1 << 20).unwrap();
        let clock = GuestClock {
            rate: TscRate::new(1_000_000_000),
            start: Ticks::ZERO,
            unix_ns_at_start: 0,
        };
        let mut platform = Platform::new(clock, &layout, ApicMode::XApic);
        // Entry 1 of the I/O APIC, and a local APIC that is enabled.
        for (gpa, value) in
            [(IOAPIC_BASE, 0x12), (IOAPIC_BASE + 0x10, 0x1_0045), (LAPIC_BASE + 0xf0, 0x1ff)]
        {
            let _ = platform.mmio_write_alone(Gpa::new(gpa), AccessWidth::Dword, value, NOW);
        }
        platform
    }

    fn vcpu() -> FakeVcpu {
        let mut vcpu = FakeVcpu::default();
        for number in 0..16 {
            vcpu.set(Gpr::from_number(number), 0x1122_3344_5566_7700 + u64::from(number));
        }
        vcpu
    }

    /// The whole state of the two APICs.
    fn told(platform: &mut Platform) -> (String, u64, [u64; 4]) {
        let select = platform.mmio_read(Gpa::new(IOAPIC_BASE), AccessWidth::Dword, NOW);
        let entries = [0x0, 0x12, 0x13, 0x20].map(|index| {
            let _ =
                platform.mmio_write_alone(Gpa::new(IOAPIC_BASE), AccessWidth::Dword, index, NOW);
            platform.mmio_read(Gpa::new(IOAPIC_BASE + 0x10), AccessWidth::Dword, NOW)
        });
        let _ = platform.mmio_write_alone(Gpa::new(IOAPIC_BASE), AccessWidth::Dword, select, NOW);
        (format!("{:?}", platform.lapic()), select, entries)
    }

    /// Accesses every register of the two APICs with moves of each width, direction and kind of
    /// source: registers and devices end as after the full emulation.
    #[test]
    fn it_ends_as_the_long_way_does() {
        for bytes in [
            &[0x89, 0x03][..],
            &[0x44, 0x89, 0x0b],
            &[0x48, 0x89, 0x03],
            &[0x66, 0x89, 0x0b],
            &[0x88, 0x0b],
            &[0x8b, 0x13],
            &[0x4c, 0x8b, 0x3b],
            &[0x66, 0x8b, 0x13],
            &[0x8a, 0x13],
            &[0x40, 0x8a, 0x33],
            &[0xc6, 0x03, 0x91],
            &[0x66, 0xc7, 0x03, 0x34, 0x92],
            &[0xc7, 0x03, 0x20, 0x00, 0x06, 0x80],
            &[0x48, 0xc7, 0x03, 0xff, 0x01, 0x00, 0x00],
        ] {
            let mut all = [0x90; 16];
            all[..bytes.len()].copy_from_slice(bytes);
            let (plain, whole) =
                (plain_move(&all).unwrap(), decode(bytes, CodeSize::Bits64).unwrap());
            for gpa in
                [IOAPIC_BASE, IOAPIC_BASE + 0x10, IOAPIC_BASE + 0x12, 0xfec0_2000, ERST_BASE - 8]
                    .into_iter()
                    .chain((LAPIC_BASE..LAPIC_BASE + 0x410).step_by(8))
            {
                let gpa = Gpa::new(gpa);
                let (mut ours, mut short) = (platform(), vcpu());
                let effect = plain_mmio(&plain, &mut short, &mut ours, gpa, NOW);
                assert_eq!(effect, Some(DeviceEffect::None));
                let (mut theirs, mut regs) = (platform(), *vcpu().regs());
                let (state, memory) = (CpuState::default(), FakeGuestMemory::new(0));
                let platform = &mut theirs;
                let mut context = EmulationContext {
                    regs: &mut regs,
                    state: &state,
                    platform,
                    memory: &memory,
                    now: NOW,
                    watch: BreakpointWatch::default(),
                };
                let done = mmio(&mut context, &whole, gpa).unwrap();
                assert_eq!(done, EmulationOutcome::advance(DeviceEffect::None), "{bytes:02x?}");
                assert_eq!(*short.regs(), regs, "{bytes:02x?} at {gpa:?}");
                assert_eq!(told(&mut ours), told(&mut theirs), "{bytes:02x?} at {gpa:?}");
            }
        }
    }

    #[test]
    fn a_device_that_works_on_guest_memory_is_left_to_the_long_way() {
        let plain = plain_move(&[0x89, 0x03, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        let (mut platform, mut vcpu) = (platform(), vcpu());
        let before = told(&mut platform);
        assert_eq!(plain_mmio(&plain, &mut vcpu, &mut platform, Gpa::new(ERST_BASE), NOW), None);
        assert_eq!(told(&mut platform), before);
    }
}
