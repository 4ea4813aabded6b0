//! The guest's own page tables: from a linear to a guest physical address.
//!
//! ```text
//!   CR0.PG = 0   identity              CR4.PAE = 0   2 levels, 4-byte entries, 4 MiB pages
//!   EFER.LMA = 0, PAE                  3 levels, the top one without rights
//!   EFER.LMA = 1                       4 levels, 5 with CR4.LA57; 2 MiB and 1 GiB pages
//! ```
//!
//! SDM 3A "Paging". The hypervisor walks these tables where it acts in the guest's place: to fetch
//! an instruction, and for the memory operand of a string instruction. It sets accessed and dirty
//! bits as the CPU would. Both bits lie in an entry's lowest byte, and only this byte is written,
//! so that a walk never undoes a change to another field of the entry. Reserved bits are checked
//! where a wrong result could follow (page size, no-execute). Those of addresses are not checked:
//! the second level refuses such addresses.
//!
//! Invariant: nothing is written before the whole walk is known to succeed.

pub mod long;
#[cfg(test)]
mod tests;

use arrayvec::ArrayVec;

use crate::addr::{Gpa, Gva};
use crate::mm::guest::{GuestMemory, GuestMemoryError};
use crate::virt::{ControlRegisters, CpuState, PageAccess};

const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Page-fault error code. SDM 3A "Page-Fault Exceptions".
pub mod error_code {
    /// The page is present; its rights forbid the access.
    pub const PROTECTION: u32 = 1 << 0;
    /// A write.
    pub const WRITE: u32 = 1 << 1;
    /// From user mode.
    pub const USER: u32 = 1 << 2;
    /// A reserved bit is set.
    pub const RESERVED: u32 = 1 << 3;
    /// An instruction fetch.
    pub const FETCH: u32 = 1 << 4;
}

/// The registers that decide how linear addresses translate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the CPU's names")]
pub struct WalkRegisters {
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
}

impl From<&CpuState> for WalkRegisters {
    fn from(state: &CpuState) -> Self {
        Self { cr0: state.cr0, cr3: state.cr3, cr4: state.cr4, efer: state.efer }
    }
}

impl From<ControlRegisters> for WalkRegisters {
    fn from(registers: ControlRegisters) -> Self {
        Self { cr0: registers.cr0, cr3: registers.cr3, cr4: registers.cr4, efer: registers.efer }
    }
}

/// The privilege of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Privilege {
    /// CPL 0 to 2.
    Supervisor,
    /// CPL 0 to 2 with RFLAGS.AC: SMAP does not apply.
    SupervisorOverride,
    /// CPL 3.
    User,
}

impl Privilege {
    /// Returns the privilege of the vCPU's explicit accesses.
    pub const fn of(cpl: u8, rflags: u64) -> Self {
        match (cpl, rflags & (1 << 18) != 0) {
            (3, _) => Privilege::User,
            (_, true) => Privilege::SupervisorOverride,
            (_, false) => Privilege::Supervisor,
        }
    }
}

/// Why an address does not translate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalkError {
    /// A table is not resident: park. Or the guest's tables lie outside RAM.
    Memory(GuestMemoryError),
    /// #PF with this error code, the linear address in CR2.
    PageFault(u32),
    /// #GP: not canonical.
    NonCanonical,
}

impl From<GuestMemoryError> for WalkError {
    fn from(access: GuestMemoryError) -> Self {
        WalkError::Memory(access)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WalkMode {
    Legacy,
    Pae,
    Long,
}

/// The structure of the tables.
struct Shape {
    mode: WalkMode,
    levels: u32,
    index_bits: u32,
    entry_bytes: usize,
}

impl WalkRegisters {
    /// Returns the structure; `None` while paging is off.
    fn shape(&self) -> Option<Shape> {
        let shape = |mode, levels, index_bits, entry_bytes| {
            Some(Shape { mode, levels, index_bits, entry_bytes })
        };
        if self.cr0 & CR0_PG == 0 {
            None
        } else if self.efer & EFER_LMA != 0 {
            shape(WalkMode::Long, if self.cr4 & CR4_LA57 != 0 { 5 } else { 4 }, 9, 8)
        } else if self.cr4 & CR4_PAE != 0 {
            shape(WalkMode::Pae, 3, 9, 8)
        } else {
            shape(WalkMode::Legacy, 2, 10, 4)
        }
    }

    fn has_no_execute(&self) -> bool {
        self.efer & EFER_NXE != 0
    }
}

/// Rights gathered on the way down.
struct Rights {
    writable: bool,
    user: bool,
    no_execute: bool,
}

/// Entries passed on the way down; their A and D bits are set at the end.
type WalkEntries = ArrayVec<(Gpa, u64), 5>;

/// Translates `gva` for an access.
///
/// # Errors
/// [`WalkError`].
pub fn translate(
    memory: &dyn GuestMemory,
    paging: &WalkRegisters,
    gva: Gva,
    access: PageAccess,
    privilege: Privilege,
) -> Result<Gpa, WalkError> {
    let Some(shape) = paging.shape() else { return Ok(Gpa::new(gva.as_u64())) };
    let linear = canonical(gva, &shape)?;
    let fault = |cause| WalkError::PageFault(cause | access_bits(paging, access, privilege));
    let mut table = root(paging, &shape);
    let mut rights = Rights { writable: true, user: true, no_execute: false };
    let mut seen = WalkEntries::new();
    for level in (1..=shape.levels).rev() {
        let shift = 12 + shape.index_bits * (level - 1);
        let index = (linear >> shift) & ((1 << shape.index_bits) - 1);
        let at = Gpa::new(table + index * shape.entry_bytes as u64);
        let entry = read_entry(memory, at, shape.entry_bytes)?;
        if entry & PRESENT == 0 {
            return Err(fault(0));
        }
        let leaf = level == 1 || is_large(entry, level, paging, &shape).map_err(fault)?;
        let has_rights = !(shape.mode == WalkMode::Pae && level == 3);
        if entry & NO_EXECUTE != 0 && !paging.has_no_execute() {
            return Err(fault(error_code::PROTECTION | error_code::RESERVED));
        }
        if has_rights {
            rights.writable &= entry & WRITABLE != 0;
            rights.user &= entry & USER != 0;
            rights.no_execute |= entry & NO_EXECUTE != 0;
            seen.push((at, entry));
        }
        if leaf {
            if !rights.allow(paging, access, privilege) {
                return Err(fault(error_code::PROTECTION));
            }
            note_access(memory, &seen, access)?;
            let low = (1u64 << shift) - 1;
            return Ok(Gpa::new((frame(entry, level, &shape) & !low) | (linear & low)));
        }
        table = entry & ADDRESS;
    }
    unreachable!("level 1 is always a leaf")
}

/// Checks the address, and returns it; outside long mode it has 32 bits.
fn canonical(gva: Gva, shape: &Shape) -> Result<u64, WalkError> {
    let linear = gva.as_u64();
    if shape.mode != WalkMode::Long {
        return Ok(linear & 0xffff_ffff);
    }
    let unused = 64 - (12 + shape.index_bits * shape.levels);
    let extended = (((linear << unused) as i64) >> unused) as u64;
    if extended == linear { Ok(linear) } else { Err(WalkError::NonCanonical) }
}

const fn root(paging: &WalkRegisters, shape: &Shape) -> u64 {
    match shape.mode {
        WalkMode::Long => paging.cr3 & ADDRESS,
        WalkMode::Pae => paging.cr3 & 0xffff_ffe0,
        WalkMode::Legacy => paging.cr3 & 0xffff_f000,
    }
}

fn read_entry(memory: &dyn GuestMemory, at: Gpa, bytes: usize) -> Result<u64, GuestMemoryError> {
    let mut entry = [0; 8];
    memory.read(at, &mut entry[..bytes])?;
    Ok(u64::from_le_bytes(entry))
}

/// Tells whether an entry above level 1 maps a page. The page-size bit is reserved at levels that
/// have no large pages.
fn is_large(entry: u64, level: u32, paging: &WalkRegisters, shape: &Shape) -> Result<bool, u32> {
    if entry & LARGE == 0 {
        return Ok(false);
    }
    match (shape.mode, level) {
        (WalkMode::Legacy, _) => Ok(paging.cr4 & CR4_PSE != 0),
        (_, 2) | (WalkMode::Long, 3) => Ok(true),
        _ => Err(error_code::PROTECTION | error_code::RESERVED),
    }
}

/// Returns the frame's address. The entry of a 4 MiB page has address bits 39:32 in its bits 20:13.
const fn frame(entry: u64, level: u32, shape: &Shape) -> u64 {
    match (shape.mode, level) {
        (WalkMode::Legacy, 2) => (entry & 0xffc0_0000) | ((entry >> 13) & 0xff) << 32,
        (WalkMode::Legacy, _) => entry & 0xffff_f000,
        _ => entry & ADDRESS,
    }
}

impl Rights {
    fn allow(&self, paging: &WalkRegisters, access: PageAccess, privilege: Privilege) -> bool {
        let user = privilege == Privilege::User;
        let mode_allows = match (user, access) {
            (true, _) => self.user,
            (false, PageAccess::Execute) => !(self.user && paging.cr4 & CR4_SMEP != 0),
            (false, _) => {
                !(self.user && paging.cr4 & CR4_SMAP != 0 && privilege == Privilege::Supervisor)
            }
        };
        let access_allows = match access {
            PageAccess::Read => true,
            PageAccess::Write => self.writable || (!user && paging.cr0 & CR0_WP == 0),
            PageAccess::Execute => !self.no_execute,
        };
        mode_allows && access_allows
    }
}

/// Returns the bits of the error code that depend on the access alone.
fn access_bits(paging: &WalkRegisters, access: PageAccess, privilege: Privilege) -> u32 {
    let fetch_told = paging.has_no_execute() || paging.cr4 & CR4_SMEP != 0;
    let kind = match access {
        PageAccess::Read => 0,
        PageAccess::Write => error_code::WRITE,
        PageAccess::Execute if fetch_told => error_code::FETCH,
        PageAccess::Execute => 0,
    };
    kind | if privilege == Privilege::User { error_code::USER } else { 0 }
}

/// Sets the bits that are not set yet: accessed in every entry, dirty in the leaf of a write.
fn note_access(
    memory: &dyn GuestMemory,
    seen: &WalkEntries,
    access: PageAccess,
) -> Result<(), GuestMemoryError> {
    for (i, &(at, entry)) in seen.iter().enumerate() {
        let dirty = if access == PageAccess::Write && i + 1 == seen.len() { DIRTY } else { 0 };
        let wanted = entry | ACCESSED | dirty;
        if wanted != entry {
            memory.write(at, &[wanted as u8])?;
        }
    }
    Ok(())
}
