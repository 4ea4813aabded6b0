//! Memory type range registers: kept for the guest to read back, without effect. The second-level
//! table decides the type.
//!
//! They exist because Linux 6.1 uses PAT only if MTRRs are enabled. SDM 3A "Memory Type Range
//! Registers (MTRRs)".

use super::number::{MTRR_CAP, MTRR_DEF_TYPE};
use super::{FAULT, MsrError};
use crate::dump::state_note::{StateError, StateReader, StateWriter};

const VARIABLE: u32 = 0x200;
const VARIABLE_COUNT: usize = 8;
const VARIABLE_LAST: u32 = VARIABLE + 2 * VARIABLE_COUNT as u32 - 1;
const FIXED: [u32; 11] =
    [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];

/// Eight variable ranges, fixed ranges, write combining.
const CAP_VALUE: u64 = VARIABLE_COUNT as u64 | (1 << 8) | (1 << 10);
/// Enabled, fixed ranges enabled, write-back by default.
const DEF_TYPE_RESET: u64 = (1 << 11) | (1 << 10) | WRITE_BACK;
const DEF_TYPE_WRITABLE: u64 = 0xcff;
const WRITE_BACK: u64 = 6;

/// The registers.
#[derive(Clone, Debug)]
pub(super) struct Mtrrs {
    default_type: u64,
    variable: [u64; 2 * VARIABLE_COUNT],
    fixed: [u64; FIXED.len()],
}

impl Default for Mtrrs {
    fn default() -> Self {
        let all_write_back = u64::from_le_bytes([WRITE_BACK as u8; 8]);
        Self {
            default_type: DEF_TYPE_RESET,
            variable: [0; 2 * VARIABLE_COUNT],
            fixed: [all_write_back; FIXED.len()],
        }
    }
}

impl Mtrrs {
    /// Appends the registers.
    pub(super) fn save(&self, out: &mut StateWriter) {
        out.u64(self.default_type);
        self.variable.iter().chain(&self.fixed).for_each(|value| out.u64(*value));
    }

    /// Takes saved registers over.
    pub(super) fn restore(&mut self, from: &mut StateReader<'_>) -> Result<(), StateError> {
        self.default_type = from.u64()?;
        for register in self.variable.iter_mut().chain(&mut self.fixed) {
            *register = from.u64()?;
        }
        from.check(self.default_type & !DEF_TYPE_WRITABLE == 0)
    }

    /// Tells whether `msr` is one of these registers.
    pub(super) fn owns(&self, msr: u32) -> bool {
        self.read(msr).is_some()
    }

    /// Reads a register.
    pub(super) fn read(&self, msr: u32) -> Option<u64> {
        match msr {
            MTRR_CAP => Some(CAP_VALUE),
            MTRR_DEF_TYPE => Some(self.default_type),
            VARIABLE..=VARIABLE_LAST => self.variable.get((msr - VARIABLE) as usize).copied(),
            _ => FIXED.iter().position(|&fixed| fixed == msr).map(|i| self.fixed[i]),
        }
    }

    /// Writes a register; the caller has checked [`Self::owns`].
    pub(super) fn write(&mut self, msr: u32, value: u64) -> Result<(), MsrError> {
        let register = match msr {
            MTRR_DEF_TYPE if value & !DEF_TYPE_WRITABLE != 0 => None,
            MTRR_DEF_TYPE => Some(&mut self.default_type),
            VARIABLE..=VARIABLE_LAST => self.variable.get_mut((msr - VARIABLE) as usize),
            _ => FIXED.iter().position(|&fixed| fixed == msr).map(|i| &mut self.fixed[i]),
        };
        *register.ok_or(FAULT)? = value;
        Ok(())
    }
}
