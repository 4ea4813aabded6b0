//! fw_cfg: a guest tells the address of its VMCOREINFO note through it (QEMU "fw_cfg bindings" and
//! `etc/vmcoreinfo`).
//!
//! ```text
//!   selector 0x510 ──> item      data 0x511: next byte of the item
//!   DMA 0x514, 0x518 ──> descriptor in guest memory { control, length, address }: select, skip, read, write
//! ```
//!
//! Invariant: an operation changes the device's own state only after its last access to guest
//! memory. So an operation that finds a page not resident is simply repeated.

use super::saved::SavedDevice;
use crate::addr::Gpa;
use crate::dump::state_note::{StateError, StatePart, StateReader, StateWriter};
use crate::mm::guest::{GuestMemory, GuestMemoryError};
use crate::time::Ticks;

const KEY_SIGNATURE: u16 = 0x00;
const KEY_ID: u16 = 0x01;
const KEY_DIRECTORY: u16 = 0x19;
const KEY_VMCOREINFO: u16 = 0x20;

const SIGNATURE: &[u8; 4] = b"QEMU";
/// The value that the DMA address register reads.
const DMA_SIGNATURE: u64 = 0x5145_4d55_2043_4647;
/// Traditional interface and DMA interface.
const ID: u32 = 3;

const CONTROL_ERROR: u32 = 1 << 0;
const CONTROL_READ: u32 = 1 << 1;
const CONTROL_SKIP: u32 = 1 << 2;
const CONTROL_SELECT: u32 = 1 << 3;
const CONTROL_WRITE: u32 = 1 << 4;

const VMCOREINFO_BYTES: usize = 16;
const DIRECTORY_BYTES: usize = 4 + 64;
/// Longest transfer: no item comes near it.
const MAX_TRANSFER: usize = 256;

/// VMCOREINFO in ELF note form: the only format that Linux writes.
const FORMAT_ELF: u16 = 1;

/// The VMCOREINFO note that the guest has reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VmcoreinfoNote {
    /// First byte of the ELF note.
    pub gpa: Gpa,
    /// Its length.
    pub bytes: u32,
}

/// The device.
#[derive(Clone, Debug)]
pub struct FwCfg {
    selected: u16,
    offset: usize,
    dma_high: u32,
    vmcoreinfo: [u8; VMCOREINFO_BYTES],
}

/// One DMA descriptor, decoded.
struct Descriptor {
    control: u32,
    length: u32,
    address: Gpa,
}

impl FwCfg {
    /// Makes the device; the host's side of `etc/vmcoreinfo` offers the ELF format.
    pub const fn new() -> Self {
        let mut vmcoreinfo = [0; VMCOREINFO_BYTES];
        vmcoreinfo[0] = FORMAT_ELF as u8;
        Self { selected: 0, offset: 0, dma_high: 0, vmcoreinfo }
    }

    /// Returns the note that the guest wrote to `etc/vmcoreinfo`, if it wrote one.
    pub fn vmcoreinfo(&self) -> Option<VmcoreinfoNote> {
        let half = |at: usize| u16::from_le_bytes([self.vmcoreinfo[at], self.vmcoreinfo[at + 1]]);
        let bytes = u32::from(half(4)) | (u32::from(half(6)) << 16);
        let low = u32::from(half(8)) | (u32::from(half(10)) << 16);
        let high = u32::from(half(12)) | (u32::from(half(14)) << 16);
        let gpa = Gpa::new(u64::from(low) | (u64::from(high) << 32));
        (half(2) == FORMAT_ELF && bytes != 0).then_some(VmcoreinfoNote { gpa, bytes })
    }

    /// Selects an item.
    pub const fn select(&mut self, key: u16) {
        self.selected = key;
        self.offset = 0;
    }

    /// Reads the next byte of the item; zero after its end.
    pub fn read_data(&mut self) -> u8 {
        let byte = self.byte(self.selected, self.offset);
        self.offset = self.offset.saturating_add(1);
        byte
    }

    /// Reads a dword of the DMA address register: the signature, big-endian on the bus.
    pub const fn read_dma(&self, half: DmaHalf) -> u32 {
        match half {
            DmaHalf::High => ((DMA_SIGNATURE >> 32) as u32).swap_bytes(),
            DmaHalf::Low => (DMA_SIGNATURE as u32).swap_bytes(),
        }
    }

    /// Writes a dword of the DMA address register; the low half starts the operation.
    ///
    /// # Errors
    /// The error of the access to guest memory; then nothing has happened.
    pub fn write_dma(
        &mut self,
        half: DmaHalf,
        value: u32,
        memory: &dyn GuestMemory,
    ) -> Result<(), GuestMemoryError> {
        let value = value.swap_bytes();
        match half {
            DmaHalf::High => self.dma_high = value,
            DmaHalf::Low => {
                let descriptor = Gpa::new((u64::from(self.dma_high) << 32) | u64::from(value));
                self.run(descriptor, memory)?;
                self.dma_high = 0;
            }
        }
        Ok(())
    }

    fn run(&mut self, at: Gpa, memory: &dyn GuestMemory) -> Result<(), GuestMemoryError> {
        let Some(descriptor) = optional(Descriptor::read(at, memory))? else { return Ok(()) };
        let mut next = self.clone();
        if descriptor.control & CONTROL_SELECT != 0 {
            next.select((descriptor.control >> 16) as u16);
        }
        let done =
            optional(next.transfer(&descriptor, memory))?.is_some_and(|ok| ok == DmaTransfer::Done);
        let result = if done { 0 } else { CONTROL_ERROR };
        if optional(memory.write(at, &result.to_be_bytes()))?.is_some() {
            *self = next;
        }
        Ok(())
    }

    fn transfer(
        &mut self,
        descriptor: &Descriptor,
        memory: &dyn GuestMemory,
    ) -> Result<DmaTransfer, GuestMemoryError> {
        let length = descriptor.length as usize;
        if descriptor.control & CONTROL_READ != 0 {
            let mut buf = [0; MAX_TRANSFER];
            let Some(buf) = buf.get_mut(..length) else { return Ok(DmaTransfer::Refused) };
            buf.iter_mut().for_each(|byte| *byte = self.read_data());
            memory.write(descriptor.address, buf)?;
        } else if descriptor.control & CONTROL_WRITE != 0 {
            let end = self.offset.saturating_add(length);
            let writable = self.selected == KEY_VMCOREINFO && end <= VMCOREINFO_BYTES;
            let Some(item) = self.vmcoreinfo.get_mut(self.offset..end).filter(|_| writable) else {
                return Ok(DmaTransfer::Refused);
            };
            memory.read(descriptor.address, item)?;
            self.offset = end;
        } else if descriptor.control & CONTROL_SKIP != 0 {
            self.offset = self.offset.saturating_add(length);
        }
        Ok(DmaTransfer::Done)
    }

    fn byte(&self, key: u16, offset: usize) -> u8 {
        let byte = match key {
            KEY_SIGNATURE => SIGNATURE.get(offset).copied(),
            KEY_ID => ID.to_le_bytes().get(offset).copied(),
            KEY_DIRECTORY => directory().get(offset).copied(),
            KEY_VMCOREINFO => self.vmcoreinfo.get(offset).copied(),
            _ => None,
        };
        byte.unwrap_or(0)
    }
}

impl Default for FwCfg {
    fn default() -> Self {
        Self::new()
    }
}

/// A dword of the DMA address register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DmaHalf {
    /// Offset 4.
    High,
    /// Offset 8: a write starts the operation.
    Low,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum DmaTransfer {
    Done,
    Refused,
}

impl Descriptor {
    fn read(at: Gpa, memory: &dyn GuestMemory) -> Result<Self, GuestMemoryError> {
        let mut bytes = [0; 16];
        memory.read(at, &mut bytes)?;
        let word =
            |i: usize| u32::from_be_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        let address = Gpa::new((u64::from(word(8)) << 32) | u64::from(word(12)));
        Ok(Self { control: word(0), length: word(4), address })
    }
}

/// Turns "no RAM there" into `None`: the device ignores that error, as a PC's does.
fn optional<T>(result: Result<T, GuestMemoryError>) -> Result<Option<T>, GuestMemoryError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(GuestMemoryError::NotRam(_)) => Ok(None),
        Err(other) => Err(other),
    }
}

/// The file directory: one entry of 64 bytes, numbers big-endian.
const fn directory() -> [u8; DIRECTORY_BYTES] {
    const NAME: &[u8] = b"etc/vmcoreinfo";
    let mut bytes = [0; DIRECTORY_BYTES];
    bytes[3] = 1;
    bytes[7] = VMCOREINFO_BYTES as u8;
    bytes[9] = KEY_VMCOREINFO as u8;
    let mut i = 0;
    while i < NAME.len() {
        bytes[12 + i] = NAME[i];
        i += 1;
    }
    bytes
}

impl SavedDevice for FwCfg {
    const PART: StatePart = StatePart::FwCfg;

    fn save(&self, out: &mut StateWriter, _: Ticks) {
        out.u16(self.selected);
        out.u64(self.offset as u64);
        out.u32(self.dma_high);
        out.bytes(&self.vmcoreinfo);
    }

    fn restore(&mut self, from: &mut StateReader<'_>, _: Ticks) -> Result<(), StateError> {
        self.selected = from.u16()?;
        self.offset = usize::try_from(from.u64()?).map_err(|_| from.impossible())?;
        self.dma_high = from.u32()?;
        self.vmcoreinfo = from.array()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::fake::FakeGuestMemory;

    const AT: u64 = 0x1000;
    const BUFFER: u64 = 0x2000;

    fn dma(
        device: &mut FwCfg,
        memory: &FakeGuestMemory,
        control: u32,
        length: u32,
    ) -> Result<u32, GuestMemoryError> {
        let mut bytes = Vec::new();
        bytes.extend(control.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend(BUFFER.to_be_bytes());
        memory.poke(AT, &bytes);
        device.write_dma(DmaHalf::High, 0, memory)?;
        device.write_dma(DmaHalf::Low, (AT as u32).swap_bytes(), memory)?;
        Ok(u32::from_be_bytes(memory.peek(AT, 4).try_into().unwrap()))
    }

    #[test]
    fn the_ports_find_signature_and_directory() {
        let mut device = FwCfg::new();
        device.select(KEY_SIGNATURE);
        assert_eq!([(); 5].map(|()| device.read_data()), *b"QEMU\0");
        device.select(KEY_DIRECTORY);
        let entry: Vec<u8> = (0..DIRECTORY_BYTES).map(|_| device.read_data()).collect();
        assert_eq!(&entry[..12], &[0, 0, 0, 1, 0, 0, 0, 16, 0, 0x20, 0, 0]);
        assert_eq!(&entry[12..27], b"etc/vmcoreinfo\0");
        assert_eq!(device.read_dma(DmaHalf::High).to_le_bytes(), *b"QEMU");
    }

    #[test]
    fn a_guest_leaves_its_note_by_dma() {
        let (mut device, memory) = (FwCfg::new(), FakeGuestMemory::new(0x4000));
        assert_eq!(device.vmcoreinfo(), None);
        let mut note = vec![0, 0, 1, 0];
        note.extend(1024u32.to_le_bytes());
        note.extend(0x1234_5678_9000u64.to_le_bytes());
        memory.poke(BUFFER, &note);
        let control = u32::from(KEY_VMCOREINFO) << 16 | CONTROL_SELECT | CONTROL_WRITE;
        assert_eq!(dma(&mut device, &memory, control, 16), Ok(0));
        assert_eq!(
            device.vmcoreinfo(),
            Some(VmcoreinfoNote { gpa: Gpa::new(0x1234_5678_9000), bytes: 1024 })
        );
    }

    #[test]
    fn nothing_has_happened_where_a_page_is_not_resident() {
        let memory = FakeGuestMemory::new(0x4000);
        for page in [AT, BUFFER] {
            let mut device = FwCfg::new();
            memory.evict(page);
            let control = u32::from(KEY_VMCOREINFO) << 16 | CONTROL_SELECT | CONTROL_READ;
            assert!(matches!(
                dma(&mut device, &memory, control, 16),
                Err(GuestMemoryError::NotResident(_))
            ));
            assert_eq!((device.selected, device.offset), (0, 0));
            memory.bring_in(page);
            assert_eq!(dma(&mut device, &memory, control, 16), Ok(0));
            assert_eq!((device.selected, device.offset), (KEY_VMCOREINFO, 16));
        }
    }

    #[test]
    fn transfers_that_make_no_sense_end_with_the_error_bit() {
        let (mut device, memory) = (FwCfg::new(), FakeGuestMemory::new(0x4000));
        let select = CONTROL_SELECT | u32::from(KEY_SIGNATURE) << 16;
        assert_eq!(dma(&mut device, &memory, select | CONTROL_WRITE, 4), Ok(CONTROL_ERROR));
        assert_eq!(dma(&mut device, &memory, select | CONTROL_READ, u32::MAX), Ok(CONTROL_ERROR));
        let select = CONTROL_SELECT | u32::from(KEY_VMCOREINFO) << 16;
        assert_eq!(dma(&mut device, &memory, select | CONTROL_WRITE, 17), Ok(CONTROL_ERROR));
        assert_eq!(dma(&mut device, &memory, CONTROL_SKIP, u32::MAX), Ok(0));
        assert_eq!(dma(&mut device, &memory, CONTROL_SKIP, u32::MAX), Ok(0));
        assert_eq!(
            device.write_dma(DmaHalf::Low, u32::MAX, &memory),
            Ok(()),
            "a descriptor outside RAM"
        );
    }
}
