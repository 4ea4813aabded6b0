//! The guest's breakpoints at the accesses of an emulated instruction.
//!
//! The debug exception of a data or port breakpoint is delivered behind the instruction, or behind
//! an element of a repeated one, and only for accesses that have taken place. SDM 3B "Data Memory
//! and I/O Breakpoint Exception Conditions".

use super::EmulationContext;
use crate::addr::Gva;
use crate::partition::decode::{
    AddressBase, Alu, BitOp, Instruction, InstructionKind, RegisterOperand, SourceOperand,
};
use crate::virt::breakpoints::{BreakpointAccess, Breakpoints};
use crate::virt::{AccessWidth, Gpr};

/// The guest's breakpoints, and those that were met.
#[derive(Clone, Copy, Debug, Default)]
pub struct BreakpointWatch {
    breakpoints: Option<Breakpoints>,
    /// Breakpoints met by accesses that may still fail.
    pending: u64,
    hits: u64,
}

impl BreakpointWatch {
    /// Watches for `breakpoints`, if there are any.
    pub const fn new(breakpoints: Option<Breakpoints>) -> Self {
        Self { breakpoints, pending: 0, hits: 0 }
    }

    /// Returns DR6's bits of the breakpoints that were met.
    pub const fn hits(&self) -> u64 {
        self.hits
    }

    pub(super) fn note(&mut self, touch: BreakpointAccess, at: u64, width: AccessWidth) {
        if let Some(breakpoints) = &self.breakpoints {
            self.pending |= breakpoints.hits(touch, at, width);
        }
    }

    /// Counts the accesses since the last call as having taken place.
    pub(super) const fn commit(&mut self) {
        self.hits |= self.pending;
    }
}

impl EmulationContext<'_> {
    /// Notes the access to ModRM's operand. Must be called before registers change, because the
    /// address depends on them.
    pub(super) fn watch_operand(&mut self, instruction: &Instruction) {
        if self.watch.breakpoints.is_some()
            && let Some((touch, at)) =
                operand_touch(instruction.kind).zip(self.operand_address(instruction))
        {
            self.watch.note(touch, at.as_u64(), instruction.width);
        }
    }

    /// Returns the linear address of the operand that ModRM or an offset gives.
    pub(super) fn operand_address(&self, instruction: &Instruction) -> Option<Gva> {
        let operand = instruction.operand?;
        let base = match operand.base {
            AddressBase::None => 0,
            AddressBase::Next => self.regs.rip.wrapping_add(u64::from(instruction.length)),
            // POP computes the address with the stack pointer after the pop.
            AddressBase::Register(Gpr::Rsp) if instruction.kind == InstructionKind::Pop => {
                self.regs.get(Gpr::Rsp).wrapping_add(instruction.width.bytes() as u64)
            }
            AddressBase::Register(gpr) => self.regs.get(gpr),
        };
        let index = operand.index.map_or(0, |(gpr, shift)| self.regs.get(gpr) << shift);
        let offset = base.wrapping_add(index).wrapping_add(operand.displacement);
        let offset = offset.wrapping_add(self.bit_offset(instruction)) & instruction.address.mask();
        Some(self.linear(instruction.segment.unwrap_or(operand.segment), offset))
    }

    /// Returns the byte offset of a bit number in a register: it may lie before or after the
    /// operand.
    fn bit_offset(&self, instruction: &Instruction) -> u64 {
        let InstructionKind::Bit(_, SourceOperand::Register(RegisterOperand { gpr, .. })) =
            instruction.kind
        else {
            return 0;
        };
        let bits = 8 * instruction.width.bytes() as u32;
        let number = (self.regs.get(gpr) << (64 - bits)) as i64 >> (64 - bits);
        (number.div_euclid(i64::from(bits)) * i64::from(bits / 8)) as u64
    }
}

/// Returns the kind of access to ModRM's operand; `None` if there is none, as in string
/// instructions.
const fn operand_touch(kind: InstructionKind) -> Option<BreakpointAccess> {
    Some(match kind {
        InstructionKind::Load { .. }
        | InstructionKind::AluMemory(Alu::Cmp, _)
        | InstructionKind::AluRegister(..)
        | InstructionKind::Test(_)
        | InstructionKind::Bit(BitOp::Test, _)
        | InstructionKind::Multiply(..)
        | InstructionKind::MultiplyWide(_)
        | InstructionKind::ConditionalLoad(..)
        | InstructionKind::Scan(..)
        | InstructionKind::LoadSwapped(_)
        | InstructionKind::Push => BreakpointAccess::Read,
        InstructionKind::Store(_)
        | InstructionKind::AluMemory(..)
        | InstructionKind::Exchange(_)
        | InstructionKind::Unary(_)
        | InstructionKind::Bit(..)
        | InstructionKind::CompareExchange(_)
        | InstructionKind::ExchangeAdd(_)
        | InstructionKind::Shift(..)
        | InstructionKind::SetByte(_)
        | InstructionKind::StoreSwapped(_)
        | InstructionKind::Pop => BreakpointAccess::Write,
        InstructionKind::CompareStrings
        | InstructionKind::ScanString
        | InstructionKind::LoadString
        | InstructionKind::MoveString
        | InstructionKind::StoreString
        | InstructionKind::InString
        | InstructionKind::OutString
        | InstructionKind::System(_)
        | InstructionKind::ToControl(..)
        | InstructionKind::LoadStatusWord(_)
        | InstructionKind::Other => return None,
    })
}
