//! IN and OUT. The string forms are in `memory`, with everything that touches guest memory.

use crate::partition::decision::Decision;
use crate::partition::devices::clock::Tsc;
use crate::partition::machine::{Bytes, Machine};
use crate::virt::{Gpr, IoAccess, IoDirection, Width};

impl Machine {
    pub(super) fn port_io(&mut self, io: IoAccess, next: u64, memory: &Bytes<'_>, now: Tsc) -> Decision {
        match io.direction {
            IoDirection::In => {
                let value = self.platform.pio_read(io.port, io.width, now);
                let regs = self.vcpu.regs_mut();
                regs.set(Gpr::Rax, merge(regs.get(Gpr::Rax), u64::from(value), io.width));
                Decision::SkipTo(next)
            }
            IoDirection::Out => {
                let value = (self.vcpu.regs().get(Gpr::Rax) & io.width.mask()) as u32;
                match self.platform.pio_write(io.port, io.width, value, memory) {
                    Ok(effect) => Decision::after(next, effect),
                    Err(access) => access.into(),
                }
            }
        }
    }
}

/// Puts `value` into a register as the CPU does: a byte or word leaves the rest, a dword clears the upper half.
const fn merge(old: u64, value: u64, width: Width) -> u64 {
    match width {
        Width::Byte | Width::Word => (old & !width.mask()) | (value & width.mask()),
        Width::Dword | Width::Qword => value & width.mask(),
    }
}
