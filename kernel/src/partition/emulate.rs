//! Carries out an instruction at a device in the guest's place.
//!
//! ```text
//!   second-level fault in the device hole ──> mmio()         mov, arithmetic, bits, push at one device register
//!                                                            movs, cmps, ...: element by element
//!   exit for INS or OUTS ──────────────────> port_string()   element by element
//! ```
//!
//! Invariants: registers change only when everything that can fail has succeeded. A repeated string
//! instruction commits after each element, as the CPU does. After [`MAX_ELEMENTS`] the guest is
//! left at the instruction to run it again, so that none holds up a CPU. Segment limits are not
//! checked: kernels have used flat segments for decades.

mod alu;
mod bits;
mod plain;
mod string;
mod watch;

#[cfg(test)]
mod tests;

use super::decode::{
    Alu, BitOp, Factor, Instruction, InstructionKind, OperandExtension, RegisterOperand,
    RegisterPart, ShiftCount, ShiftOperation, SourceOperand, Unary,
};
use super::devices::{DeviceEffect, Platform};
use super::walk::WalkError;
use crate::addr::{Gpa, Gva};
use crate::mm::guest::{GuestMemory, GuestMemoryError};
use crate::time::Ticks;
use crate::virt::{AccessWidth, CpuState, Gpr, InjectedEvent, Regs};
pub use plain::plain_mmio;
pub use string::port_string;
pub use watch::BreakpointWatch;

/// Elements of a string instruction that one call carries out.
pub const MAX_ELEMENTS: usize = 128;

/// The state that an instruction works on.
pub struct EmulationContext<'a> {
    /// General registers.
    pub regs: &'a mut Regs,
    /// Segments and paging.
    pub state: &'a CpuState,
    /// The devices.
    pub platform: &'a mut Platform,
    /// The guest's memory.
    pub memory: &'a dyn GuestMemory,
    /// The time of the access.
    pub now: Ticks,
    /// The guest's breakpoints.
    pub watch: BreakpointWatch,
}

/// Why an instruction is not carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EmulateError {
    /// An access to guest memory failed; a page that is not resident means: park and run again.
    Memory(GuestMemoryError),
    /// The guest gets this exception.
    Exception(InjectedEvent),
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

impl From<GuestMemoryError> for EmulateError {
    fn from(access: GuestMemoryError) -> Self {
        EmulateError::Memory(access)
    }
}

impl EmulateError {
    fn from_walk(error: WalkError, at: Gva) -> Self {
        match error {
            WalkError::Memory(access) => EmulateError::Memory(access),
            WalkError::PageFault(error_code) => EmulateError::PageFault { at, error_code },
            WalkError::NonCanonical => EmulateError::Exception(InjectedEvent::general_protection()),
        }
    }
}

/// Where the guest goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InstructionProgress {
    /// Behind the instruction.
    Advance,
    /// At the same instruction: a repetition is not finished.
    Repeat,
}

/// The result of an instruction that was carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the guest must be moved on and the effect applied"]
pub struct EmulationOutcome {
    /// Where the guest goes on.
    pub next: InstructionProgress,
    /// The device's effect on the partition.
    pub effect: DeviceEffect,
}

impl EmulationOutcome {
    const fn advance(effect: DeviceEffect) -> Self {
        Self { next: InstructionProgress::Advance, effect }
    }
}

/// Carries out `instruction`; its access to `gpa` has exited.
///
/// # Errors
/// [`EmulateError`].
pub fn mmio(
    context: &mut EmulationContext<'_>,
    instruction: &Instruction,
    gpa: Gpa,
) -> Result<EmulationOutcome, EmulateError> {
    context.watch_operand(instruction);
    let done = carry_out(context, instruction, gpa)?;
    context.watch.commit();
    Ok(done)
}

fn carry_out(
    context: &mut EmulationContext<'_>,
    instruction: &Instruction,
    gpa: Gpa,
) -> Result<EmulationOutcome, EmulateError> {
    let width = instruction.width;
    let effect = match instruction.kind {
        InstructionKind::Store(source) => {
            let value = context.source(source, width);
            context.device_write(gpa, width, value)?
        }
        InstructionKind::Load { register, extend, to } => {
            let value = context.device_read(gpa, width);
            let value =
                if extend == OperandExtension::Sign { sign_extend(value, width) } else { value };
            context.set_register(register, to, value);
            DeviceEffect::None
        }
        InstructionKind::Exchange(register) => context.exchange(register, gpa, width)?,
        InstructionKind::AluMemory(Alu::Cmp, source) => {
            context.flags_only(Alu::Sub, gpa, width, source)
        }
        InstructionKind::Test(source) => context.flags_only(Alu::And, gpa, width, source),
        InstructionKind::AluMemory(op, source) => context.alu_memory(op, source, gpa, width)?,
        InstructionKind::Unary(op) => context.unary(op, gpa, width)?,
        InstructionKind::AluRegister(op, register) => {
            context.alu_register(op, register, gpa, width)
        }
        InstructionKind::Bit(op, number) => context.bit(op, number, gpa, width)?,
        InstructionKind::Shift(op, count) => context.shift(op, count, gpa, width)?,
        InstructionKind::CompareExchange(register) => {
            context.compare_exchange(gpa, width, register)?
        }
        InstructionKind::ExchangeAdd(register) => context.exchange_add(register, gpa, width)?,
        InstructionKind::SetByte(condition) => {
            let value = u64::from(bits::holds(condition, context.regs.rflags));
            context.device_write(gpa, AccessWidth::Byte, value)?
        }
        InstructionKind::StoreSwapped(register) => {
            let value = swapped(context.register(register, width), width);
            context.device_write(gpa, width, value)?
        }
        InstructionKind::Multiply(..)
        | InstructionKind::MultiplyWide(_)
        | InstructionKind::ConditionalLoad(..)
        | InstructionKind::Scan(..)
        | InstructionKind::LoadSwapped(_) => {
            let value = context.device_read(gpa, width);
            context.compute(instruction.kind, value, width);
            DeviceEffect::None
        }
        InstructionKind::Push => string::push(context, instruction, gpa)?,
        InstructionKind::Pop => string::pop(context, instruction, gpa)?,
        InstructionKind::MoveString => return string::move_string(context, instruction),
        InstructionKind::StoreString => return string::store_string(context, instruction),
        InstructionKind::CompareStrings => return string::compare_strings(context, instruction),
        InstructionKind::ScanString => return string::scan_string(context, instruction),
        InstructionKind::LoadString => return string::load_string(context, instruction),
        InstructionKind::System(_)
        | InstructionKind::ToControl(..)
        | InstructionKind::LoadStatusWord(_)
        | InstructionKind::InString
        | InstructionKind::OutString
        | InstructionKind::Other => return Err(EmulateError::NotEmulated),
    };
    Ok(EmulationOutcome::advance(effect))
}

impl EmulationContext<'_> {
    fn device_read(&mut self, gpa: Gpa, width: AccessWidth) -> u64 {
        self.platform.mmio_read(gpa, width, self.now)
    }

    fn device_write(
        &mut self,
        gpa: Gpa,
        width: AccessWidth,
        value: u64,
    ) -> Result<DeviceEffect, GuestMemoryError> {
        self.platform.mmio_write(gpa, width, value, self.now, self.memory)
    }

    fn write_back(
        &mut self,
        gpa: Gpa,
        width: AccessWidth,
        value: u64,
        rflags: u64,
    ) -> Result<DeviceEffect, GuestMemoryError> {
        let effect = self.device_write(gpa, width, value)?;
        self.regs.rflags = rflags;
        Ok(effect)
    }

    fn flags_only(
        &mut self,
        op: Alu,
        gpa: Gpa,
        width: AccessWidth,
        source: SourceOperand,
    ) -> DeviceEffect {
        let (value, operand) = (self.device_read(gpa, width), self.source(source, width));
        self.regs.rflags = alu::binary(op, value, operand, width, self.regs.rflags).1;
        DeviceEffect::None
    }

    fn bit(
        &mut self,
        op: BitOp,
        number: SourceOperand,
        gpa: Gpa,
        width: AccessWidth,
    ) -> Result<DeviceEffect, GuestMemoryError> {
        let (old, number) = (self.device_read(gpa, width), self.source(number, width));
        let (value, rflags) = bits::bit(op, old, number, width, self.regs.rflags);
        if op == BitOp::Test {
            self.regs.rflags = rflags;
            return Ok(DeviceEffect::None);
        }
        self.write_back(gpa, width, value, rflags)
    }

    /// XCHG.
    fn exchange(
        &mut self,
        register: RegisterOperand,
        gpa: Gpa,
        width: AccessWidth,
    ) -> Result<DeviceEffect, GuestMemoryError> {
        let old = self.device_read(gpa, width);
        let effect = self.device_write(gpa, width, self.register(register, width))?;
        self.set_register(register, width, old);
        Ok(effect)
    }

    /// ADD, OR, ADC, SBB, AND, SUB and XOR with a destination in memory.
    fn alu_memory(
        &mut self,
        op: Alu,
        source: SourceOperand,
        gpa: Gpa,
        width: AccessWidth,
    ) -> Result<DeviceEffect, GuestMemoryError> {
        let (old, operand) = (self.device_read(gpa, width), self.source(source, width));
        let (value, rflags) = alu::binary(op, old, operand, width, self.regs.rflags);
        self.write_back(gpa, width, value, rflags)
    }

    /// The same with a destination in a register, and CMP.
    fn alu_register(
        &mut self,
        op: Alu,
        register: RegisterOperand,
        gpa: Gpa,
        width: AccessWidth,
    ) -> DeviceEffect {
        let (operand, old) = (self.device_read(gpa, width), self.register(register, width));
        let (value, rflags) = alu::binary(op, old, operand, width, self.regs.rflags);
        if op != Alu::Cmp {
            self.set_register(register, width, value);
        }
        self.regs.rflags = rflags;
        DeviceEffect::None
    }

    /// INC, DEC, NEG and NOT.
    fn unary(
        &mut self,
        op: Unary,
        gpa: Gpa,
        width: AccessWidth,
    ) -> Result<DeviceEffect, GuestMemoryError> {
        let old = self.device_read(gpa, width);
        let (value, rflags) = alu::unary(op, old, width, self.regs.rflags);
        self.write_back(gpa, width, value, rflags)
    }

    /// Shifts and rotations.
    fn shift(
        &mut self,
        op: ShiftOperation,
        count: ShiftCount,
        gpa: Gpa,
        width: AccessWidth,
    ) -> Result<DeviceEffect, GuestMemoryError> {
        let old = self.device_read(gpa, width);
        let count = self.shift_count(count);
        let (value, rflags) = bits::shift(op, old, count, width, self.regs.rflags);
        self.write_back(gpa, width, value, rflags)
    }

    /// XADD.
    fn exchange_add(
        &mut self,
        register: RegisterOperand,
        gpa: Gpa,
        width: AccessWidth,
    ) -> Result<DeviceEffect, GuestMemoryError> {
        let (old, operand) = (self.device_read(gpa, width), self.register(register, width));
        let (value, rflags) = alu::binary(Alu::Add, old, operand, width, self.regs.rflags);
        let effect = self.write_back(gpa, width, value, rflags)?;
        self.set_register(register, width, old);
        Ok(effect)
    }

    /// CMPXCHG. The CPU writes in any case: the old value where the comparison fails.
    fn compare_exchange(
        &mut self,
        gpa: Gpa,
        width: AccessWidth,
        register: RegisterOperand,
    ) -> Result<DeviceEffect, GuestMemoryError> {
        let accumulator = RegisterOperand { gpr: Gpr::Rax, part: RegisterPart::Low };
        let (old, expected) = (self.device_read(gpa, width), self.register(accumulator, width));
        let (_, rflags) = alu::binary(Alu::Cmp, expected, old, width, self.regs.rflags);
        let equal = old == expected;
        let effect = self.write_back(
            gpa,
            width,
            if equal { self.register(register, width) } else { old },
            rflags,
        )?;
        if !equal {
            self.set_register(accumulator, width, old);
        }
        Ok(effect)
    }

    /// Carries out instructions that change only registers and flags; `value` is the value of
    /// memory.
    fn compute(&mut self, kind: InstructionKind, value: u64, width: AccessWidth) {
        let rflags = self.regs.rflags;
        match kind {
            InstructionKind::Multiply(register, factor) => {
                let factor = match factor {
                    Factor::Itself => self.register(register, width),
                    Factor::Constant(constant) => constant,
                };
                let (product, rflags) = alu::multiply(value, factor, width, rflags);
                self.set_register(register, width, product);
                self.regs.rflags = rflags;
            }
            InstructionKind::MultiplyWide(extend) => self.multiply_wide(value, extend, width),
            InstructionKind::ConditionalLoad(condition, register) => {
                // A dword register loses its upper half even if the condition does not hold.
                let kept = self.register(register, width);
                self.set_register(
                    register,
                    width,
                    if bits::holds(condition, rflags) { value } else { kept },
                );
            }
            InstructionKind::Scan(scan, register) => {
                let (found, rflags) =
                    bits::scan(scan, value, self.register(register, width), rflags);
                self.set_register(register, width, found);
                self.regs.rflags = rflags;
            }
            InstructionKind::LoadSwapped(register) => {
                self.set_register(register, width, swapped(value, width))
            }
            _ => {}
        }
    }

    fn multiply_wide(&mut self, value: u64, extend: OperandExtension, width: AccessWidth) {
        let low = RegisterOperand { gpr: Gpr::Rax, part: RegisterPart::Low };
        let high = match width {
            AccessWidth::Byte => RegisterOperand { gpr: Gpr::Rax, part: RegisterPart::HighByte },
            _ => RegisterOperand { gpr: Gpr::Rdx, part: RegisterPart::Low },
        };
        let factor = self.register(low, width);
        let (halves, rflags) = alu::multiply_wide(value, factor, extend, width, self.regs.rflags);
        self.set_register(low, width, halves.0);
        self.set_register(high, width, halves.1);
        self.regs.rflags = rflags;
    }

    fn shift_count(&self, count: ShiftCount) -> u8 {
        match count {
            ShiftCount::Constant(count) => count,
            ShiftCount::Cl => self.regs.get(Gpr::Rcx) as u8,
        }
    }

    fn source(&self, source: SourceOperand, width: AccessWidth) -> u64 {
        match source {
            SourceOperand::Register(register) => self.register(register, width),
            SourceOperand::Immediate(value) => value & width.mask(),
        }
    }

    fn register(&self, register: RegisterOperand, width: AccessWidth) -> u64 {
        let value = self.regs.get(register.gpr);
        match register.part {
            RegisterPart::Low => value & width.mask(),
            RegisterPart::HighByte => (value >> 8) & 0xff,
        }
    }

    /// Writes a register operand: bytes and words keep the rest, dwords clear the upper half.
    fn set_register(&mut self, register: RegisterOperand, width: AccessWidth, value: u64) {
        let old = self.regs.get(register.gpr);
        let new = match (register.part, width) {
            (RegisterPart::HighByte, _) => (old & !0xff00) | ((value & 0xff) << 8),
            (RegisterPart::Low, _) => width.merge(old, value),
        };
        self.regs.set(register.gpr, new);
    }
}

const fn swapped(value: u64, width: AccessWidth) -> u64 {
    value.swap_bytes() >> (64 - 8 * width.bytes() as u32)
}

const fn sign_extend(value: u64, width: AccessWidth) -> u64 {
    let unused = 64 - 8 * width.bytes() as u32;
    (((value << unused) as i64) >> unused) as u64
}
