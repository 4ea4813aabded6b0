//! Carrying out an instruction at a device in the guest's place.
//!
//! ```text
//!   second-level fault in the device hole ──> mmio()         mov, and/or/..., test, xchg at one device register
//!                                                            movs, stos: element by element
//!   exit for INS or OUTS ──────────────────> port_string()   element by element
//! ```
//!
//! Invariants: registers change only when everything that can fail has succeeded; a repeated string instruction commits
//! after each element, as the CPU does, and is left (to be run again) after [`MAX_ELEMENTS`], so that none holds up a CPU.
//! Segment limits are not checked: flat segments are all that kernels have used for decades.

mod alu;
mod string;

#[cfg(test)]
mod tests;

use super::decode::{Alu, Extend, Instruction, Kind, Part, Register, Source};
use super::devices::clock::Tsc;
use super::devices::{Effect, Platform};
use super::walk::WalkError;
use crate::addr::{Gpa, Gva};
use crate::mm::guest::{GuestAccess, GuestMemory};
use crate::virt::{CpuState, Event, Regs, Width};
pub use string::port_string;

/// Elements of a string instruction that one call carries out.
pub const MAX_ELEMENTS: usize = 128;

/// What an instruction works on.
pub struct Context<'a> {
    /// General registers.
    pub regs: &'a mut Regs,
    /// Segments and paging.
    pub state: &'a CpuState,
    /// The devices.
    pub platform: &'a mut Platform,
    /// The guest's memory.
    pub memory: &'a dyn GuestMemory,
    /// Now.
    pub now: Tsc,
}

/// Why an instruction is not carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EmulateError {
    /// A page is needed first: park and run again.
    Memory(GuestAccess),
    /// The guest gets this exception.
    Exception(Event),
    /// The guest gets #PF at this address; the caller sets CR2.
    PageFault {
        /// Goes to CR2.
        at: Gva,
        /// Error code.
        error_code: u32,
    },
    /// An instruction that is not emulated at a device.
    NotEmulated,
}

impl From<GuestAccess> for EmulateError {
    fn from(access: GuestAccess) -> Self {
        EmulateError::Memory(access)
    }
}

impl EmulateError {
    fn from_walk(error: WalkError, at: Gva) -> Self {
        match error {
            WalkError::Memory(access) => EmulateError::Memory(access),
            WalkError::PageFault(error_code) => EmulateError::PageFault { at, error_code },
            WalkError::NonCanonical => EmulateError::Exception(Event::general_protection()),
        }
    }
}

/// Where the guest goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Behind the instruction.
    Advance,
    /// At the same instruction: a repetition is not finished.
    Repeat,
}

/// What carrying out an instruction led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the guest must be moved on and the effect applied"]
pub struct Done {
    /// Where to go on.
    pub next: Next,
    /// What a device wants.
    pub effect: Effect,
}

impl Done {
    const fn advance(effect: Effect) -> Self {
        Self { next: Next::Advance, effect }
    }
}

/// Carries out `instruction`, whose access to `gpa` has exited.
///
/// # Errors
/// [`EmulateError`].
pub fn mmio(context: &mut Context<'_>, instruction: &Instruction, gpa: Gpa) -> Result<Done, EmulateError> {
    let width = instruction.width;
    let effect = match instruction.kind {
        Kind::Store(source) => {
            let value = context.source(source, width);
            context.device_write(gpa, width, value)?
        }
        Kind::Load { register, extend, to } => {
            let value = context.device_read(gpa, width);
            let value = if extend == Extend::Sign { sign_extend(value, width) } else { value };
            context.set_register(register, to, value);
            Effect::None
        }
        Kind::Exchange(register) => {
            let old = context.device_read(gpa, width);
            let effect = context.device_write(gpa, width, context.register(register, width))?;
            context.set_register(register, width, old);
            effect
        }
        Kind::AluMemory(Alu::Cmp, source) => context.flags_only(Alu::Sub, gpa, width, source),
        Kind::Test(source) => context.flags_only(Alu::And, gpa, width, source),
        Kind::AluMemory(op, source) => {
            let (old, operand) = (context.device_read(gpa, width), context.source(source, width));
            let (value, rflags) = alu::binary(op, old, operand, width, context.regs.rflags);
            context.write_back(gpa, width, value, rflags)?
        }
        Kind::Unary(op) => {
            let old = context.device_read(gpa, width);
            let (value, rflags) = alu::unary(op, old, width, context.regs.rflags);
            context.write_back(gpa, width, value, rflags)?
        }
        Kind::AluRegister(op, register) => {
            let (operand, old) = (context.device_read(gpa, width), context.register(register, width));
            let (value, rflags) = alu::binary(op, old, operand, width, context.regs.rflags);
            if op != Alu::Cmp {
                context.set_register(register, width, value);
            }
            context.regs.rflags = rflags;
            Effect::None
        }
        Kind::MoveString => return string::move_string(context, instruction),
        Kind::StoreString => return string::store_string(context, instruction),
        Kind::InString | Kind::OutString | Kind::Other => return Err(EmulateError::NotEmulated),
    };
    Ok(Done::advance(effect))
}

impl Context<'_> {
    fn device_read(&mut self, gpa: Gpa, width: Width) -> u64 {
        self.platform.mmio_read(gpa, width, self.now)
    }

    fn device_write(&mut self, gpa: Gpa, width: Width, value: u64) -> Result<Effect, GuestAccess> {
        self.platform.mmio_write(gpa, width, value, self.now, self.memory)
    }

    fn write_back(&mut self, gpa: Gpa, width: Width, value: u64, rflags: u64) -> Result<Effect, GuestAccess> {
        let effect = self.device_write(gpa, width, value)?;
        self.regs.rflags = rflags;
        Ok(effect)
    }

    fn flags_only(&mut self, op: Alu, gpa: Gpa, width: Width, source: Source) -> Effect {
        let (value, operand) = (self.device_read(gpa, width), self.source(source, width));
        self.regs.rflags = alu::binary(op, value, operand, width, self.regs.rflags).1;
        Effect::None
    }

    fn source(&self, source: Source, width: Width) -> u64 {
        match source {
            Source::Register(register) => self.register(register, width),
            Source::Immediate(value) => value & width.mask(),
        }
    }

    fn register(&self, register: Register, width: Width) -> u64 {
        let value = self.regs.get(register.gpr);
        match register.part {
            Part::Low => value & width.mask(),
            Part::HighByte => (value >> 8) & 0xff,
        }
    }

    /// Writes a register operand: bytes and words leave the rest alone, dwords clear the upper half.
    fn set_register(&mut self, register: Register, width: Width, value: u64) {
        let old = self.regs.get(register.gpr);
        let new = match (register.part, width) {
            (Part::HighByte, _) => (old & !0xff00) | ((value & 0xff) << 8),
            (Part::Low, Width::Byte | Width::Word) => (old & !width.mask()) | (value & width.mask()),
            (Part::Low, Width::Dword | Width::Qword) => value & width.mask(),
        };
        self.regs.set(register.gpr, new);
    }
}

const fn sign_extend(value: u64, width: Width) -> u64 {
    let unused = 64 - 8 * width.bytes() as u32;
    (((value << unused) as i64) >> unused) as u64
}
