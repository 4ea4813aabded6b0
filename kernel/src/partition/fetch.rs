//! Fetching the instruction at which the guest stopped.

use crate::addr::{Gva, PAGE_SIZE};
use crate::mm::guest::GuestMemory;
use crate::virt::{CpuState, PageAccess};

use super::decode::{CodeSize, DecodeError, Instruction, MAX_LENGTH, decode};
use super::walk::{Privilege, WalkError, WalkRegisters, translate};

/// The location and mode of the guest's code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CodeView {
    /// Default operand size.
    pub size: CodeSize,
    /// Base of CS; unused in 64-bit code.
    pub base: u64,
    /// Translation.
    pub paging: WalkRegisters,
    /// Privilege of the fetch.
    pub privilege: Privilege,
}

impl From<&CpuState> for CodeView {
    fn from(state: &CpuState) -> Self {
        Self {
            size: CodeSize::of(state),
            base: state.cs.base,
            paging: state.into(),
            privilege: Privilege::of(state.cpl(), 0),
        }
    }
}

/// Why an instruction was not fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FetchError {
    /// Its address does not translate.
    Walk(WalkError, Gva),
    /// The hypervisor does not carry out this instruction.
    Unknown,
}

/// Fetches and decodes the instruction at `rip`. The next page is touched only if the instruction
/// reaches into it.
///
/// # Errors
/// [`FetchError`].
pub fn instruction(
    memory: &dyn GuestMemory,
    view: &CodeView,
    rip: u64,
) -> Result<Instruction, FetchError> {
    let start = view.linear(rip);
    let mut bytes = [0; MAX_LENGTH];
    let first = MAX_LENGTH.min((PAGE_SIZE - start.page_offset()) as usize);
    view.copy(memory, start, &mut bytes[..first])?;
    match decode(&bytes[..first], view.size) {
        Ok(instruction) => Ok(instruction),
        Err(DecodeError::Truncated) => {
            view.copy(memory, view.linear(rip.wrapping_add(first as u64)), &mut bytes[first..])?;
            decode(&bytes, view.size).map_err(|_| FetchError::Unknown)
        }
        Err(DecodeError::Unknown) => Err(FetchError::Unknown),
    }
}

/// Fetches the first byte of the instruction at `rip`, without decoding it.
///
/// # Errors
/// [`FetchError::Walk`].
pub fn opcode(memory: &dyn GuestMemory, view: &CodeView, rip: u64) -> Result<u8, FetchError> {
    let mut byte = [0];
    view.copy(memory, view.linear(rip), &mut byte)?;
    Ok(byte[0])
}

impl CodeView {
    fn linear(&self, rip: u64) -> Gva {
        Gva::new(match self.size {
            CodeSize::Bits64 => rip,
            _ => self.base.wrapping_add(rip) & 0xffff_ffff,
        })
    }

    fn copy(&self, memory: &dyn GuestMemory, from: Gva, to: &mut [u8]) -> Result<(), FetchError> {
        let walk = |error| FetchError::Walk(error, from);
        let gpa = translate(memory, &self.paging, from, PageAccess::Execute, self.privilege)
            .map_err(walk)?;
        memory.read(gpa, to).map_err(|error| walk(WalkError::Memory(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Gpa;
    use crate::mm::guest::GuestMemoryError;
    use crate::partition::fake::FakeGuestMemory;

    fn flat(size: CodeSize, base: u64) -> CodeView {
        let paging = WalkRegisters { cr0: 1, cr3: 0, cr4: 0, efer: 0 };
        CodeView { size, base, paging, privilege: Privilege::Supervisor }
    }

    #[test]
    fn the_next_page_is_touched_only_if_the_instruction_reaches_it() {
        let memory = FakeGuestMemory::new(0x3000);
        memory.evict(0x2000);
        memory.poke(0x1ffe, &[0x0f, 0xa2, 0x90]);
        assert_eq!(
            instruction(&memory, &flat(CodeSize::Bits64, 0), 0x1ffe).map(|i| i.length),
            Ok(2)
        );
        let missing = FetchError::Walk(
            WalkError::Memory(GuestMemoryError::NotResident(Gpa::new(0x2000))),
            Gva::new(0x2000),
        );
        memory.poke(0x1fff, &[0x0f]);
        assert_eq!(instruction(&memory, &flat(CodeSize::Bits64, 0), 0x1fff), Err(missing));
        memory.bring_in(0x2000);
        memory.poke(0x2000, &[0xa2]);
        assert_eq!(
            instruction(&memory, &flat(CodeSize::Bits64, 0), 0x1fff).map(|i| i.length),
            Ok(2)
        );
    }

    #[test]
    fn the_code_segments_base_counts_outside_64_bit_code() {
        let memory = FakeGuestMemory::new(0x3000);
        memory.poke(0x1100, &[0xf4]);
        assert_eq!(
            instruction(&memory, &flat(CodeSize::Bits16, 0x1000), 0x100).map(|i| i.length),
            Ok(1)
        );
        assert_eq!(
            instruction(&memory, &flat(CodeSize::Bits32, 0xffff_f000), 0x2100).map(|i| i.length),
            Ok(1),
            "wraps"
        );
    }
}
