//! MOVS and STOS with a device at one end (or both), INS and OUTS.
//!
//! Each element: translate its addresses, move it, then step the registers. What is no RAM is a device.

use super::{Context, Done, EmulateError, MAX_ELEMENTS, Next};
use crate::addr::{Gpa, Gva, PAGE_SIZE};
use crate::mm::guest::GuestAccess;
use crate::partition::decode::{CodeSize, Instruction, Kind, Repeat, SegmentName};
use crate::partition::devices::Effect;
use crate::partition::walk::{Paging, Privilege, translate};
use crate::virt::{Access, Gpr, Width};

const DIRECTION: u64 = 1 << 10;

/// Carries out INS or OUTS at `port`.
///
/// # Errors
/// [`EmulateError`].
pub fn port_string(context: &mut Context<'_>, instruction: &Instruction, port: u16) -> Result<Done, EmulateError> {
    let width = instruction.width;
    match instruction.kind {
        Kind::InString => each(context, instruction, |context| {
            let to = context.destination(instruction);
            // A port read cannot be taken back: first make sure that its value can be stored.
            let gpa = context.place(to, width, Access::Write)?;
            context.load(gpa, width)?;
            let value = context.platform.pio_read(port, width, || context.now);
            let effect = context.store(gpa, width, value.into())?;
            context.step(instruction, Gpr::Rdi);
            Ok(effect)
        }),
        Kind::OutString => each(context, instruction, |context| {
            let gpa = context.place(context.origin(instruction), width, Access::Read)?;
            let value = context.load(gpa, width)?;
            let effect = context.platform.pio_write(port, width, value as u32, context.memory)?;
            context.step(instruction, Gpr::Rsi);
            Ok(effect)
        }),
        _ => Err(EmulateError::NotEmulated),
    }
}

pub(super) fn move_string(context: &mut Context<'_>, instruction: &Instruction) -> Result<Done, EmulateError> {
    let width = instruction.width;
    each(context, instruction, |context| {
        let from = context.place(context.origin(instruction), width, Access::Read)?;
        let to = context.place(context.destination(instruction), width, Access::Write)?;
        let value = context.load(from, width)?;
        let effect = context.store(to, width, value)?;
        context.step(instruction, Gpr::Rsi);
        context.step(instruction, Gpr::Rdi);
        Ok(effect)
    })
}

pub(super) fn store_string(context: &mut Context<'_>, instruction: &Instruction) -> Result<Done, EmulateError> {
    let width = instruction.width;
    each(context, instruction, |context| {
        let to = context.place(context.destination(instruction), width, Access::Write)?;
        let effect = context.store(to, width, context.regs.get(Gpr::Rax) & width.mask())?;
        context.step(instruction, Gpr::Rdi);
        Ok(effect)
    })
}

/// Repeats `element` as the prefix says, within bounds; stops behind an element with an effect, so that none is lost.
fn each(
    context: &mut Context<'_>,
    instruction: &Instruction,
    mut element: impl FnMut(&mut Context<'_>) -> Result<Effect, EmulateError>,
) -> Result<Done, EmulateError> {
    if instruction.repeat == Repeat::Once {
        return element(context).map(Done::advance);
    }
    for _ in 0..MAX_ELEMENTS {
        if context.counter(instruction, Gpr::Rcx) == 0 {
            return Ok(Done::advance(Effect::None));
        }
        let effect = element(context)?;
        let left = context.counter(instruction, Gpr::Rcx).wrapping_sub(1);
        context.set_counter(instruction, Gpr::Rcx, left);
        if effect != Effect::None {
            return Ok(Done { next: Next::Repeat, effect });
        }
    }
    Ok(Done { next: Next::Repeat, effect: Effect::None })
}

/// Where an element lies: one place, or two where it crosses into another page.
#[derive(Clone, Copy)]
struct Place {
    first: Gpa,
    first_bytes: usize,
    second: Gpa,
}

impl Context<'_> {
    fn counter(&self, instruction: &Instruction, gpr: Gpr) -> u64 {
        self.regs.get(gpr) & instruction.address.mask()
    }

    /// Writes an address-sized register: words leave the rest alone, dwords clear the upper half.
    fn set_counter(&mut self, instruction: &Instruction, gpr: Gpr, value: u64) {
        let mask = instruction.address.mask();
        let kept = if instruction.address == Width::Word { self.regs.get(gpr) & !mask } else { 0 };
        self.regs.set(gpr, kept | (value & mask));
    }

    fn step(&mut self, instruction: &Instruction, gpr: Gpr) {
        let bytes = instruction.width.bytes() as u64;
        let delta = if self.regs.rflags & DIRECTION != 0 { bytes.wrapping_neg() } else { bytes };
        let value = self.regs.get(gpr).wrapping_add(delta);
        self.set_counter(instruction, gpr, value);
    }

    /// ES:rDI.
    fn destination(&self, instruction: &Instruction) -> Gva {
        self.linear(SegmentName::Es, self.counter(instruction, Gpr::Rdi))
    }

    /// DS:rSI, or with the segment override's.
    fn origin(&self, instruction: &Instruction) -> Gva {
        self.linear(instruction.segment.unwrap_or(SegmentName::Ds), self.counter(instruction, Gpr::Rsi))
    }

    fn linear(&self, segment: SegmentName, offset: u64) -> Gva {
        let long = CodeSize::of(self.state) == CodeSize::Bits64;
        let base = match segment {
            SegmentName::Fs => self.state.fs.base,
            SegmentName::Gs => self.state.gs.base,
            _ if long => 0,
            SegmentName::Es => self.state.es.base,
            SegmentName::Cs => self.state.cs.base,
            SegmentName::Ss => self.state.ss.base,
            SegmentName::Ds => self.state.ds.base,
        };
        let linear = base.wrapping_add(offset);
        Gva::new(if long { linear } else { linear & 0xffff_ffff })
    }

    fn place(&self, at: Gva, width: Width, access: Access) -> Result<Place, EmulateError> {
        let first = self.translated(at, access)?;
        let first_bytes = width.bytes().min((PAGE_SIZE - at.page_offset()) as usize);
        let second = if first_bytes < width.bytes() {
            self.translated(Gva::new(at.as_u64().wrapping_add(first_bytes as u64)), access)?
        } else {
            first
        };
        Ok(Place { first, first_bytes, second })
    }

    fn translated(&self, at: Gva, access: Access) -> Result<Gpa, EmulateError> {
        let privilege = Privilege::of(self.state.cpl(), self.regs.rflags);
        translate(self.memory, &Paging::from(self.state), at, access, privilege)
            .map_err(|error| EmulateError::from_walk(error, at))
    }

    fn load(&mut self, place: Place, width: Width) -> Result<u64, EmulateError> {
        let mut bytes = [0; 8];
        let (first, second) = bytes[..width.bytes()].split_at_mut(place.first_bytes);
        let read = self.memory.read(place.first, first).and_then(|()| match second {
            [] => Ok(()),
            second => self.memory.read(place.second, second),
        });
        match read {
            Ok(()) => Ok(u64::from_le_bytes(bytes)),
            Err(GuestAccess::NotRam(_)) => Ok(self.device_read(place.first, width)),
            Err(other) => Err(other.into()),
        }
    }

    fn store(&mut self, place: Place, width: Width, value: u64) -> Result<Effect, EmulateError> {
        let bytes = value.to_le_bytes();
        let (first, second) = bytes[..width.bytes()].split_at(place.first_bytes);
        let written = self.memory.write(place.first, first).and_then(|()| match second {
            [] => Ok(()),
            second => self.memory.write(place.second, second),
        });
        match written {
            Ok(()) => Ok(Effect::None),
            Err(GuestAccess::NotRam(_)) => Ok(self.device_write(place.first, width, value)?),
            Err(other) => Err(other.into()),
        }
    }
}
