//! The local APIC's state while its partition is suspended.

use super::{ApicMode, LocalApic, Vectors};
use crate::arch::apic_words::{InterruptCommand, LocalVector};
use crate::dump::state_note::{StateError, StatePart, StateReader, StateWriter};
use crate::partition::devices::saved::SavedDevice;
use crate::time::Ticks;

impl SavedDevice for LocalApic {
    const PART: StatePart = StatePart::LocalApic;

    fn save(&self, out: &mut StateWriter, now: Ticks) {
        out.u8(match self.mode {
            ApicMode::Disabled => 0,
            ApicMode::XApic => 1,
            ApicMode::X2Apic => 2,
        });
        out.u64(self.base);
        for set in [self.irr, self.isr, self.tmr] {
            set.words().into_iter().for_each(|word| out.u64(word));
        }
        out.bool(self.nmi_pending);
        out.u8(self.tpr);
        for register in [self.svr, self.logical, self.destination_format] {
            out.u32(register);
        }
        out.u64(self.icr.into_bits());
        self.lvt.iter().for_each(|entry| out.u32(entry.into_bits()));
        self.timer.save(out, now, self.rate);
        for register in [self.ticks, self.errors, self.errors_latched] {
            out.u32(register);
        }
    }

    fn restore(&mut self, from: &mut StateReader<'_>, now: Ticks) -> Result<(), StateError> {
        self.mode = match from.u8()? {
            0 => ApicMode::Disabled,
            1 => ApicMode::XApic,
            2 => ApicMode::X2Apic,
            _ => return Err(from.impossible()),
        };
        self.base = from.u64()?;
        from.check(self.base & 0xfff == 0)?;
        for set in [&mut self.irr, &mut self.isr, &mut self.tmr] {
            *set = Vectors::of_words([from.u64()?, from.u64()?, from.u64()?, from.u64()?]);
        }
        self.nmi_pending = from.bool()?;
        self.tpr = from.u8()?;
        for register in [&mut self.svr, &mut self.logical, &mut self.destination_format] {
            *register = from.u32()?;
        }
        self.icr = InterruptCommand::from_bits(from.u64()?);
        for entry in &mut self.lvt {
            *entry = LocalVector::from_bits(from.u32()?);
        }
        self.timer.restore(from, now, self.rate)?;
        for register in [&mut self.ticks, &mut self.errors, &mut self.errors_latched] {
            *register = from.u32()?;
        }
        // The first entry looks for pending interrupts.
        self.news = true;
        Ok(())
    }
}
