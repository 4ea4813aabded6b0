//! IN and OUT. The string forms are in `memory`, with everything that touches guest memory.

use crate::arch::instr;
use crate::partition::decision::ExitDecision;
use crate::partition::devices::{DeviceEffect, Platform};
use crate::partition::machine::{PartitionMemory, VirtualMachine};
use crate::time::Ticks;
use crate::virt::breakpoints::BreakpointAccess;
use crate::virt::{AccessWidth, Gpr, IoAccess, IoDirection, VcpuRegisters};

impl VirtualMachine {
    pub(super) fn port_io(
        &mut self,
        io: IoAccess,
        next: u64,
        memory: &PartitionMemory<'_>,
    ) -> ExitDecision {
        let alone = access_port(&mut self.platform, &mut self.vcpu, io).map(Ok);
        let done = alone.unwrap_or_else(|| {
            let value = operand(&self.vcpu, io.width);
            self.platform.pio_write(io.port, io.width, value, memory, &now)
        });
        match done {
            Ok(effect) => {
                self.break_behind_port(io);
                ExitDecision::after(next, effect)
            }
            Err(access) => access.into(),
        }
    }

    fn break_behind_port(&mut self, io: IoAccess) {
        if let Some(breakpoints) = self.vcpu.breakpoints() {
            self.break_behind(breakpoints.hits(BreakpointAccess::Port, io.port.into(), io.width));
        }
    }
}

/// Carries out an access; `None` if the device needs guest memory for it.
#[inline(always)]
pub(super) fn access_port(
    platform: &mut Platform,
    vcpu: &mut impl VcpuRegisters,
    io: IoAccess,
) -> Option<DeviceEffect> {
    match io.direction {
        IoDirection::In => {
            let value = platform.pio_read(io.port, io.width, now);
            vcpu.set(Gpr::Rax, io.width.merge(vcpu.regs().get(Gpr::Rax), u64::from(value)));
            Some(DeviceEffect::None)
        }
        IoDirection::Out => {
            platform.pio_write_alone(io.port, io.width, operand(vcpu, io.width), &now)
        }
    }
}

fn now() -> Ticks {
    instr::rdtsc()
}

fn operand(vcpu: &impl VcpuRegisters, width: AccessWidth) -> u32 {
    (vcpu.regs().get(Gpr::Rax) & width.mask()) as u32
}
