//! MOVS, STOS, LODS, CMPS and SCAS with a device at one end (or both), PUSH and POP of a device
//! register, INS and OUTS.
//!
//! Each element: translate its addresses, move it, then step the registers. An address that is not
//! RAM is a device's.

use super::{
    EmulateError, EmulationContext, EmulationOutcome, InstructionProgress, MAX_ELEMENTS, alu,
};
use crate::addr::{Gpa, Gva, PAGE_SIZE};
use crate::mm::guest::GuestMemoryError;
use crate::partition::decode::{
    Alu, CodeSize, Instruction, InstructionKind, RegisterOperand, RegisterPart, Repeat, SegmentName,
};
use crate::partition::devices::DeviceEffect;
use crate::partition::walk::{Privilege, WalkRegisters, translate};
use crate::virt::breakpoints::BreakpointAccess;
use crate::virt::{AccessWidth, Gpr, PageAccess, Regs};

const DIRECTION: u64 = 1 << 10;

/// Carries out INS or OUTS at `port`.
///
/// # Errors
/// [`EmulateError`].
pub fn port_string(
    context: &mut EmulationContext<'_>,
    instruction: &Instruction,
    port: u16,
) -> Result<EmulationOutcome, EmulateError> {
    let width = instruction.width;
    match instruction.kind {
        InstructionKind::InString => each(context, instruction, |context| {
            let to = context.destination(instruction);
            // A port read cannot be undone: first make sure that its value can be stored.
            let gpa = context.place(to, width, PageAccess::Write)?;
            context.load(gpa, width)?;
            context.watch.note(BreakpointAccess::Port, port.into(), width);
            let value = context.platform.pio_read(port, width, || context.now);
            let effect = context.store(gpa, width, value.into())?;
            context.step(instruction, Gpr::Rdi);
            Ok(effect)
        }),
        InstructionKind::OutString => each(context, instruction, |context| {
            let gpa = context.place(context.origin(instruction), width, PageAccess::Read)?;
            let value = context.load(gpa, width)?;
            let now = context.now;
            context.watch.note(BreakpointAccess::Port, port.into(), width);
            let effect =
                context.platform.pio_write(port, width, value as u32, context.memory, &|| now)?;
            context.step(instruction, Gpr::Rsi);
            Ok(effect)
        }),
        _ => Err(EmulateError::NotEmulated),
    }
}

pub(super) fn move_string(
    context: &mut EmulationContext<'_>,
    instruction: &Instruction,
) -> Result<EmulationOutcome, EmulateError> {
    let width = instruction.width;
    each(context, instruction, |context| {
        let from = context.place(context.origin(instruction), width, PageAccess::Read)?;
        let to = context.place(context.destination(instruction), width, PageAccess::Write)?;
        let value = context.load(from, width)?;
        let effect = context.store(to, width, value)?;
        context.step(instruction, Gpr::Rsi);
        context.step(instruction, Gpr::Rdi);
        Ok(effect)
    })
}

pub(super) fn store_string(
    context: &mut EmulationContext<'_>,
    instruction: &Instruction,
) -> Result<EmulationOutcome, EmulateError> {
    let width = instruction.width;
    each(context, instruction, |context| {
        let to = context.place(context.destination(instruction), width, PageAccess::Write)?;
        let effect = context.store(to, width, context.regs.get(Gpr::Rax) & width.mask())?;
        context.step(instruction, Gpr::Rdi);
        Ok(effect)
    })
}

pub(super) fn load_string(
    context: &mut EmulationContext<'_>,
    instruction: &Instruction,
) -> Result<EmulationOutcome, EmulateError> {
    let width = instruction.width;
    each(context, instruction, |context| {
        let from = context.place(context.origin(instruction), width, PageAccess::Read)?;
        let value = context.load(from, width)?;
        context.set_register(ACCUMULATOR, width, value);
        context.step(instruction, Gpr::Rsi);
        Ok(DeviceEffect::None)
    })
}

pub(super) fn compare_strings(
    context: &mut EmulationContext<'_>,
    instruction: &Instruction,
) -> Result<EmulationOutcome, EmulateError> {
    let width = instruction.width;
    each(context, instruction, |context| {
        let first = context.place(context.origin(instruction), width, PageAccess::Read)?;
        let second = context.place(context.destination(instruction), width, PageAccess::Read)?;
        let (first, second) = (context.load(first, width)?, context.load(second, width)?);
        context.regs.rflags = alu::binary(Alu::Cmp, first, second, width, context.regs.rflags).1;
        context.step(instruction, Gpr::Rsi);
        context.step(instruction, Gpr::Rdi);
        Ok(DeviceEffect::None)
    })
}

pub(super) fn scan_string(
    context: &mut EmulationContext<'_>,
    instruction: &Instruction,
) -> Result<EmulationOutcome, EmulateError> {
    let width = instruction.width;
    each(context, instruction, |context| {
        let at = context.place(context.destination(instruction), width, PageAccess::Read)?;
        let (value, wanted) = (context.load(at, width)?, context.register(ACCUMULATOR, width));
        context.regs.rflags = alu::binary(Alu::Cmp, wanted, value, width, context.regs.rflags).1;
        context.step(instruction, Gpr::Rdi);
        Ok(DeviceEffect::None)
    })
}

/// PUSH of a device's register at `gpa`.
pub(super) fn push(
    context: &mut EmulationContext<'_>,
    instruction: &Instruction,
    gpa: Gpa,
) -> Result<DeviceEffect, EmulateError> {
    let width = instruction.width;
    let top = context.stack_pointer().wrapping_sub(width.bytes() as u64);
    let place = context.place(
        context.linear(SegmentName::Ss, top & context.stack_mask()),
        width,
        PageAccess::Write,
    )?;
    context.load(place, width)?;
    let value = context.device_read(gpa, width);
    let effect = context.store(place, width, value)?;
    context.set_stack_pointer(top);
    Ok(effect)
}

/// POP to a device's register at `gpa`.
pub(super) fn pop(
    context: &mut EmulationContext<'_>,
    instruction: &Instruction,
    gpa: Gpa,
) -> Result<DeviceEffect, EmulateError> {
    let width = instruction.width;
    let top = context.stack_pointer();
    let place = context.place(
        context.linear(SegmentName::Ss, top & context.stack_mask()),
        width,
        PageAccess::Read,
    )?;
    let value = context.load(place, width)?;
    let effect = context.device_write(gpa, width, value)?;
    context.set_stack_pointer(top.wrapping_add(width.bytes() as u64));
    Ok(effect)
}

const ACCUMULATOR: RegisterOperand = RegisterOperand { gpr: Gpr::Rax, part: RegisterPart::Low };
const ZERO: u64 = 1 << 6;

/// Tells whether the flags end a repeated comparison.
fn has_found(context: &EmulationContext<'_>, instruction: &Instruction) -> bool {
    let equal = context.regs.rflags & ZERO != 0;
    matches!(instruction.kind, InstructionKind::CompareStrings | InstructionKind::ScanString)
        && match instruction.repeat {
            Repeat::Once => false,
            Repeat::WhileEqual => !equal,
            Repeat::WhileNotEqual => equal,
        }
}

/// Repeats `element` as the prefix says, within bounds. Stops behind an element with an effect, so
/// that no effect is lost, and behind an element that has met a breakpoint.
fn each(
    context: &mut EmulationContext<'_>,
    instruction: &Instruction,
    mut element: impl FnMut(&mut EmulationContext<'_>) -> Result<DeviceEffect, EmulateError>,
) -> Result<EmulationOutcome, EmulateError> {
    if instruction.repeat == Repeat::Once {
        let effect = element(context)?;
        context.watch.commit();
        return Ok(EmulationOutcome::advance(effect));
    }
    for _ in 0..at_once(context.regs) {
        if context.counter(instruction, Gpr::Rcx) == 0 {
            return Ok(EmulationOutcome::advance(DeviceEffect::None));
        }
        let effect = element(context)?;
        context.watch.commit();
        let left = context.counter(instruction, Gpr::Rcx).wrapping_sub(1);
        context.set_counter(instruction, Gpr::Rcx, left);
        if left == 0 || has_found(context, instruction) {
            return Ok(EmulationOutcome::advance(effect));
        }
        if effect != DeviceEffect::None || context.watch.hits() != 0 {
            return Ok(EmulationOutcome { next: InstructionProgress::Repeat, effect });
        }
    }
    Ok(EmulationOutcome { next: InstructionProgress::Repeat, effect: DeviceEffect::None })
}

/// Returns the number of elements for one call: one for a single-stepping guest, which traps behind
/// each.
const fn at_once(regs: &Regs) -> usize {
    if regs.single_steps() { 1 } else { MAX_ELEMENTS }
}

/// The address of an element: one place, or two where the element crosses into another page.
#[derive(Clone, Copy)]
struct ElementAddress {
    first: Gpa,
    first_bytes: usize,
    second: Gpa,
}

impl EmulationContext<'_> {
    fn counter(&self, instruction: &Instruction, gpr: Gpr) -> u64 {
        self.regs.get(gpr) & instruction.address.mask()
    }

    /// Writes an address-sized register: words keep the rest, dwords clear the upper half.
    fn set_counter(&mut self, instruction: &Instruction, gpr: Gpr, value: u64) {
        let mask = instruction.address.mask();
        let kept =
            if instruction.address == AccessWidth::Word { self.regs.get(gpr) & !mask } else { 0 };
        self.regs.set(gpr, kept | (value & mask));
    }

    fn step(&mut self, instruction: &Instruction, gpr: Gpr) {
        let bytes = instruction.width.bytes() as u64;
        let delta = if self.regs.rflags & DIRECTION != 0 { bytes.wrapping_neg() } else { bytes };
        let value = self.regs.get(gpr).wrapping_add(delta);
        self.set_counter(instruction, gpr, value);
    }

    /// The bits of the stack pointer that are used: SDM 1 "Address-Size Attribute for Stack
    /// Accesses".
    fn stack_mask(&self) -> u64 {
        const DEFAULT_32: u32 = 1 << 14;
        match CodeSize::of(self.state) {
            CodeSize::Bits64 => u64::MAX,
            _ if self.state.ss.attributes & DEFAULT_32 != 0 => 0xffff_ffff,
            _ => 0xffff,
        }
    }

    fn stack_pointer(&self) -> u64 {
        self.regs.get(Gpr::Rsp) & self.stack_mask()
    }

    fn set_stack_pointer(&mut self, value: u64) {
        let mask = self.stack_mask();
        let kept = if mask == 0xffff { self.regs.get(Gpr::Rsp) & !mask } else { 0 };
        self.regs.set(Gpr::Rsp, kept | value & mask);
    }

    /// ES:rDI.
    fn destination(&self, instruction: &Instruction) -> Gva {
        self.linear(SegmentName::Es, self.counter(instruction, Gpr::Rdi))
    }

    /// DS:rSI, or the overriding segment instead of DS.
    fn origin(&self, instruction: &Instruction) -> Gva {
        self.linear(
            instruction.segment.unwrap_or(SegmentName::Ds),
            self.counter(instruction, Gpr::Rsi),
        )
    }

    pub(super) fn linear(&self, segment: SegmentName, offset: u64) -> Gva {
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

    fn place(
        &mut self,
        at: Gva,
        width: AccessWidth,
        access: PageAccess,
    ) -> Result<ElementAddress, EmulateError> {
        let touch = if access == PageAccess::Write {
            BreakpointAccess::Write
        } else {
            BreakpointAccess::Read
        };
        self.watch.note(touch, at.as_u64(), width);
        let first = self.translated(at, access)?;
        let first_bytes = width.bytes().min((PAGE_SIZE - at.page_offset()) as usize);
        let second = if first_bytes < width.bytes() {
            self.translated(Gva::new(at.as_u64().wrapping_add(first_bytes as u64)), access)?
        } else {
            first
        };
        Ok(ElementAddress { first, first_bytes, second })
    }

    fn translated(&self, at: Gva, access: PageAccess) -> Result<Gpa, EmulateError> {
        let privilege = Privilege::of(self.state.cpl(), self.regs.rflags);
        translate(self.memory, &WalkRegisters::from(self.state), at, access, privilege)
            .map_err(|error| EmulateError::from_walk(error, at))
    }

    fn load(&mut self, place: ElementAddress, width: AccessWidth) -> Result<u64, EmulateError> {
        let mut bytes = [0; 8];
        let (first, second) = bytes[..width.bytes()].split_at_mut(place.first_bytes);
        let read = self.memory.read(place.first, first).and_then(|()| match second {
            [] => Ok(()),
            second => self.memory.read(place.second, second),
        });
        match read {
            Ok(()) => Ok(u64::from_le_bytes(bytes)),
            Err(GuestMemoryError::NotRam(_)) => Ok(self.device_read(place.first, width)),
            Err(other) => Err(other.into()),
        }
    }

    fn store(
        &mut self,
        place: ElementAddress,
        width: AccessWidth,
        value: u64,
    ) -> Result<DeviceEffect, EmulateError> {
        let bytes = value.to_le_bytes();
        let (first, second) = bytes[..width.bytes()].split_at(place.first_bytes);
        let written = self.memory.write(place.first, first).and_then(|()| match second {
            [] => Ok(()),
            second => self.memory.write(place.second, second),
        });
        match written {
            Ok(()) => Ok(DeviceEffect::None),
            Err(GuestMemoryError::NotRam(_)) => Ok(self.device_write(place.first, width, value)?),
            Err(other) => Err(other.into()),
        }
    }
}
