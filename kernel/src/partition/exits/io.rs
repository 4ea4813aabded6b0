//! IN and OUT. The string forms are in `memory`, with everything that touches guest memory.

use crate::arch::instr;
use crate::partition::decision::Decision;
use crate::partition::devices::clock::Tsc;
use crate::partition::devices::{Effect, Platform};
use crate::partition::machine::{Bytes, Machine};
use crate::virt::{Gpr, IoAccess, IoDirection, Registers, Width};

impl Machine {
    pub(super) fn port_io(&mut self, io: IoAccess, next: u64, memory: &Bytes<'_>) -> Decision {
        if let Some(effect) = access_port(&mut self.platform, &mut self.vcpu, io) {
            return Decision::after(next, effect);
        }
        match self.platform.pio_write(io.port, io.width, operand(&self.vcpu, io.width), memory) {
            Ok(effect) => Decision::after(next, effect),
            Err(access) => access.into(),
        }
    }
}

/// Carries an access out, unless it needs guest memory.
#[inline(always)]
pub(super) fn access_port(platform: &mut Platform, vcpu: &mut impl Registers, io: IoAccess) -> Option<Effect> {
    match io.direction {
        IoDirection::In => {
            let value = platform.pio_read(io.port, io.width, || Tsc(instr::rdtsc()));
            vcpu.set(Gpr::Rax, merge(vcpu.regs().get(Gpr::Rax), u64::from(value), io.width));
            Some(Effect::None)
        }
        IoDirection::Out => platform.pio_write_alone(io.port, io.width, operand(vcpu, io.width)),
    }
}

fn operand(vcpu: &impl Registers, width: Width) -> u32 {
    (vcpu.regs().get(Gpr::Rax) & width.mask()) as u32
}

/// Puts `value` into a register as the CPU does: a byte or word leaves the rest, a dword clears the upper half.
const fn merge(old: u64, value: u64, width: Width) -> u64 {
    match width {
        Width::Byte | Width::Word => (old & !width.mask()) | (value & width.mask()),
        Width::Dword | Width::Qword => value & width.mask(),
    }
}
