//! The notes of a suspended partition: the state of vCPU and devices, and what the guest was
//! promised. They stand among the other notes of a dump, so the space opens as an ELF core.
//!
//! | name | type | number | parts |
//! |---|---|---|---|
//! | `TIDEPOOL` | 0x54500002 | of the vCPU | registers, events, extended state, clock of the vCPU |
//! | `TIDEPOOL` | 0x54500003 | of vCPUs | a part for each device |
//! | `TIDEPOOL` | 0x54500004 | 0 | back end, CPUID |
//! | `TIDEPOOL` | 0x54500005 | 0 | checksums of the tables, last used pages |
//!
//! ```text
//!   descriptor   version 1 │ 0  │ number │ part │ part │ ...
//!                2 bytes     2    4
//!   part         kind      │ version │ length │ content, padded to 4
//!                2 bytes     2         4
//! ```
//!
//! Bit 15 of a kind says that the part is required: a reader that does not know the part, or its
//! version, refuses the whole. A part without it may be skipped. Everything here comes from a disk:
//! no content makes a reader panic, and nothing is allocated for it. Pure.

use super::notes::{HEADER_SIZE, header};
use crate::arch::heap::HeapError;
use crate::time::Ticks;
use alloc::vec::Vec;
use core::fmt;

/// The notes' name.
const NAME: &[u8] = b"TIDEPOOL";
/// Bytes of the name with its end, padded.
const NAME_ROOM: usize = 12;
/// The version of the descriptors that this code writes and reads.
const VERSION: u16 = 1;
/// Bytes before the first part.
#[cfg(test)]
const FRONT: usize = 8;
/// Bytes before a part's content.
const PART_FRONT: usize = 8;
/// Bit of a kind: a reader that does not know the part refuses the whole.
const REQUIRED: u16 = 1 << 15;
/// Most parts of a note.
const MOST_PARTS: usize = 64;

/// The kinds of state notes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum StateNoteKind {
    /// A vCPU.
    Vcpu = 0x5450_0002,
    /// All devices.
    Devices = 0x5450_0003,
    /// What the guest was promised.
    Promised = 0x5450_0004,
    /// The tables of its memory.
    Memory = 0x5450_0005,
}

/// The parts of the notes. A number is never used again for another part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
#[expect(missing_docs, reason = "`Self::name` has the words")]
pub enum StatePart {
    Registers = 1,
    Events = 2,
    Extended = 3,
    Msrs = 4,
    Clock = 16,
    LocalApic = 17,
    IoApic = 18,
    Uart = 19,
    Rtc = 20,
    FwCfg = 21,
    Power = 22,
    Pit = 23,
    Erst = 24,
    TestPort = 25,
    Generation = 26,
    PciBus = 27,
    Backend = 32,
    Cpuid = 33,
    TableSums = 48,
    HotPages = 49,
}

impl StatePart {
    /// All parts.
    pub const ALL: [Self; 20] = [
        Self::Registers,
        Self::Events,
        Self::Extended,
        Self::Msrs,
        Self::Clock,
        Self::LocalApic,
        Self::IoApic,
        Self::Uart,
        Self::Rtc,
        Self::FwCfg,
        Self::Power,
        Self::Pit,
        Self::Erst,
        Self::TestPort,
        Self::Generation,
        Self::PciBus,
        Self::Backend,
        Self::Cpuid,
        Self::TableSums,
        Self::HotPages,
    ];

    /// Returns the name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Registers => "registers",
            Self::Events => "pending events",
            Self::Extended => "extended state",
            Self::Msrs => "MSRs",
            Self::Clock => "clock",
            Self::LocalApic => "local APIC",
            Self::IoApic => "I/O APIC",
            Self::Uart => "UART",
            Self::Rtc => "CMOS clock",
            Self::FwCfg => "fw_cfg",
            Self::Power => "power registers",
            Self::Pit => "interval timer",
            Self::Erst => "error record store",
            Self::TestPort => "test port",
            Self::Generation => "generation ID",
            Self::PciBus => "PCI bus",
            Self::Backend => "back end",
            Self::Cpuid => "CPUID",
            Self::TableSums => "checksums of the tables",
            Self::HotPages => "list of used pages",
        }
    }
}

/// Why the notes are not the state of a partition that this program can run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StateError {
    /// A note or a part ends before its fields do.
    Short(&'static str),
    /// A field has a value that no guest can have.
    Field(&'static str),
    /// A required part that this program does not know: its number and version.
    Unknown(u16, u16),
    /// The descriptor has another version.
    Version(u16),
    /// The part is not there.
    Missing(&'static str),
    /// The note of vCPU 0 is not the only one.
    Vcpus(u32),
    /// The partition is defined with other devices.
    Devices,
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short(what) => write!(f, "the saved {what} is cut off"),
            Self::Field(what) => write!(f, "the saved {what} has an impossible value"),
            Self::Unknown(kind, version) => write!(
                f,
                "it was saved with part {kind}, version {version}, which this hypervisor does not \
                 have"
            ),
            Self::Version(version) => {
                write!(f, "its notes have version {version}; this hypervisor knows {VERSION}")
            }
            Self::Missing(what) => write!(f, "the saved {what} is missing"),
            Self::Devices => {
                f.write_str("it was suspended with other devices than it is defined with")
            }
            Self::Vcpus(count) => write!(f, "it has {count} vCPUs; this hypervisor gives it 1"),
        }
    }
}

/// Writes state notes. If the heap is full, the end says so.
#[derive(Debug, Default)]
pub struct StateWriter {
    bytes: Vec<u8>,
    is_full: bool,
}

impl StateWriter {
    /// Appends a note whose parts `fill` writes.
    pub fn note(&mut self, kind: StateNoteKind, number: u32, fill: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        self.bytes(&[0; HEADER_SIZE + NAME_ROOM]);
        self.u16(VERSION);
        self.u16(0);
        self.u32(number);
        fill(self);
        let len = self.bytes.len().saturating_sub(at + HEADER_SIZE + NAME_ROOM);
        if !self.is_full {
            header(&mut self.bytes[at..], NAME, kind as u32, len);
        }
    }

    /// Appends a required part whose content `fill` writes.
    pub fn part(&mut self, part: StatePart, version: u16, fill: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        self.u16(part as u16 | REQUIRED);
        self.u16(version);
        self.u32(0);
        fill(self);
        let len = self.bytes.len().saturating_sub(at + PART_FRONT) as u32;
        self.bytes(&[0; 3][..(len.next_multiple_of(4) - len) as usize]);
        if let Some(field) = self.bytes.get_mut(at + 4..at + 8).filter(|_| !self.is_full) {
            field.copy_from_slice(&len.to_le_bytes());
        }
    }

    /// Appends bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        if self.is_full || self.bytes.try_reserve(bytes.len()).is_err() {
            self.is_full = true;
            return;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends bytes behind their number.
    pub fn counted(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.bytes(bytes);
    }

    /// Appends a truth value.
    pub fn bool(&mut self, value: bool) {
        self.bytes(&[value.into()]);
    }

    /// Appends a byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    /// Appends a number.
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    /// Appends a number.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// Appends a number.
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// Appends a moment as its distance from `now`: another machine counts from another start.
    pub fn moment(&mut self, moment: Ticks, now: Ticks) {
        self.u64(moment.as_u64().wrapping_sub(now.as_u64()));
    }

    /// Returns the notes.
    ///
    /// # Errors
    /// [`HeapError`]: the heap had no room for them.
    pub fn finish(self) -> Result<Vec<u8>, HeapError> {
        if self.is_full { Err(HeapError) } else { Ok(self.bytes) }
    }
}

/// Reads the content of a part, field by field.
#[derive(Clone, Copy, Debug)]
pub struct StateReader<'a> {
    bytes: &'a [u8],
    /// The part's name, for errors.
    what: &'static str,
}

impl<'a> StateReader<'a> {
    /// Takes bytes.
    ///
    /// # Errors
    /// [`StateError::Short`], like all methods that follow.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], StateError> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(StateError::Short(self.what))?;
        self.bytes = rest;
        Ok(taken)
    }

    /// Takes an array.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        self.bytes(N)?.first_chunk().copied().ok_or(StateError::Short(self.what))
    }

    /// Takes bytes behind their number, which is at most `most`.
    ///
    /// # Errors
    /// As [`Self::bytes`]; [`StateError::Field`] if there are more.
    pub fn counted(&mut self, most: usize) -> Result<&'a [u8], StateError> {
        let len = self.u32()? as usize;
        if len > most {
            return Err(self.impossible());
        }
        self.bytes(len)
    }

    /// Takes a truth value.
    ///
    /// # Errors
    /// As [`Self::bytes`]; [`StateError::Field`] for anything but 0 and 1.
    pub fn bool(&mut self) -> Result<bool, StateError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.impossible()),
        }
    }

    /// Takes a byte.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn u8(&mut self) -> Result<u8, StateError> {
        Ok(self.array::<1>()?[0])
    }

    /// Takes a number.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn u16(&mut self) -> Result<u16, StateError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Takes a number.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn u32(&mut self) -> Result<u32, StateError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Takes a number.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn u64(&mut self) -> Result<u64, StateError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Takes a moment, as one of this machine's clock, on which it is `now`. A moment before the
    /// clock's start wraps; [`Ticks::since`] takes that into account.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn moment(&mut self, now: Ticks) -> Result<Ticks, StateError> {
        Ok(Ticks::new(self.u64()?.wrapping_add(now.as_u64())))
    }

    /// Returns the error for a field of this part.
    pub const fn impossible(&self) -> StateError {
        StateError::Field(self.what)
    }

    /// Returns the error unless `holds`.
    ///
    /// # Errors
    /// [`StateError::Field`].
    pub const fn check(&self, holds: bool) -> Result<(), StateError> {
        if holds { Ok(()) } else { Err(self.impossible()) }
    }
}

/// The parts of a state note.
#[derive(Clone, Copy, Debug)]
pub struct StateNote<'a> {
    /// Number of the vCPU, or of vCPUs.
    pub number: u32,
    parts: &'a [u8],
}

impl<'a> StateNote<'a> {
    /// Finds the notes of a kind among the notes of a dump.
    pub fn all(notes: &'a [u8], kind: StateNoteKind) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = notes;
        core::iter::from_fn(move || {
            let (note, next) = split_note(rest)?;
            rest = next;
            Some(note)
        })
        .filter(move |note| note.name == b"TIDEPOOL\0" && note.kind == kind as u32)
        .map(|note| note.descriptor)
    }

    /// Reads a descriptor: all its parts are known, whole, and there once.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn read(descriptor: &'a [u8]) -> Result<Self, StateError> {
        let mut front = StateReader { bytes: descriptor, what: "note" };
        let version = front.u16()?;
        if version != VERSION {
            return Err(StateError::Version(version));
        }
        front.check(front.clone().u16()? == 0)?;
        front.u16()?;
        let note = Self { number: front.u32()?, parts: front.bytes };
        let mut rest = note.parts;
        for _ in 0..MOST_PARTS {
            if rest.is_empty() {
                return Ok(note);
            }
            let (part, next) = split_part(rest)?;
            let is_known = StatePart::ALL.into_iter().any(|known| known as u16 == part.kind);
            if part.is_required && !is_known {
                return Err(StateError::Unknown(part.kind, part.version));
            }
            rest = next;
        }
        Err(StateError::Field("note"))
    }

    /// Returns whether the note has a part.
    pub fn has(&self, wanted: StatePart) -> bool {
        !matches!(self.part(wanted, 0, |_| Ok(())), Err(StateError::Missing(_)))
    }

    /// Reads a part with `read`, which takes all of its content.
    ///
    /// # Errors
    /// [`StateError`], also if the part is missing, there twice, or longer than `read` expects.
    pub fn part<T>(
        &self,
        wanted: StatePart,
        version: u16,
        read: impl FnOnce(&mut StateReader<'a>) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        let (mut rest, mut found) = (self.parts, None);
        while !rest.is_empty() {
            let (part, next) = split_part(rest)?;
            rest = next;
            if part.kind == wanted as u16 && found.replace(part).is_some() {
                return Err(StateError::Field(wanted.name()));
            }
        }
        let part = found.ok_or(StateError::Missing(wanted.name()))?;
        if part.version != version {
            return Err(StateError::Unknown(part.kind, part.version));
        }
        let mut reader = StateReader { bytes: part.content, what: wanted.name() };
        let value = read(&mut reader)?;
        reader.check(reader.bytes.is_empty())?;
        Ok(value)
    }
}

/// A part before its content is looked at.
#[derive(Clone, Copy)]
struct RawPart<'a> {
    kind: u16,
    is_required: bool,
    version: u16,
    content: &'a [u8],
}

fn split_part(bytes: &[u8]) -> Result<(RawPart<'_>, &[u8]), StateError> {
    let mut reader = StateReader { bytes, what: "part" };
    let (kind, version, len) = (reader.u16()?, reader.u16()?, reader.u32()? as usize);
    let content = reader.bytes(len)?;
    reader.bytes(len.next_multiple_of(4) - len)?;
    let is_required = kind & REQUIRED != 0;
    Ok((RawPart { kind: kind & !REQUIRED, is_required, version, content }, reader.bytes))
}

/// A note before its descriptor is looked at.
struct RawNote<'a> {
    /// With the zero at its end.
    name: &'a [u8],
    kind: u32,
    descriptor: &'a [u8],
}

/// Splits the first note off. `None` where no whole note is left.
fn split_note(bytes: &[u8]) -> Option<(RawNote<'_>, &[u8])> {
    let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let (name, descriptor, kind) = (word(0)? as usize, word(4)? as usize, word(8)?);
    let start = HEADER_SIZE.checked_add(name.checked_next_multiple_of(4)?)?;
    let end = start.checked_add(descriptor)?;
    let rest = bytes.get(end.checked_next_multiple_of(4)?..).unwrap_or_default();
    let (name, descriptor) = (bytes.get(HEADER_SIZE..HEADER_SIZE + name)?, bytes.get(start..end)?);
    Some((RawNote { name, kind, descriptor }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut writer = StateWriter::default();
        writer.note(StateNoteKind::Devices, 1, |note| {
            note.part(StatePart::Rtc, 1, |part| {
                part.u8(7);
                part.counted(b"abc");
                part.moment(Ticks::new(900), Ticks::new(1000));
            });
            note.part(StatePart::Pit, 2, |part| part.bool(true));
        });
        writer.note(StateNoteKind::Vcpu, 0, |_| {});
        writer.finish().unwrap()
    }

    fn read(notes: &[u8]) -> Result<(u8, Vec<u8>, Ticks, bool), StateError> {
        let descriptor =
            StateNote::all(notes, StateNoteKind::Devices).next().ok_or(StateError::Missing("x"))?;
        let note = StateNote::read(descriptor)?;
        let (a, b, c) = note.part(StatePart::Rtc, 1, |part| {
            Ok((part.u8()?, part.counted(3)?.to_vec(), part.moment(Ticks::new(50))?))
        })?;
        Ok((a, b, c, note.part(StatePart::Pit, 2, StateReader::bool)?))
    }

    #[test]
    fn what_was_written_is_read() {
        let notes = sample();
        let wrapped = Ticks::new(50_u64.wrapping_sub(100));
        assert_eq!(read(&notes), Ok((7, b"abc".to_vec(), wrapped, true)));
        assert_eq!(notes[..12], [9, 0, 0, 0, 44, 0, 0, 0, 3, 0, 0x50, 0x54]);
        assert_eq!(notes.len() % 4, 0);
        assert_eq!(StateNote::all(&notes, StateNoteKind::Vcpu).count(), 1);
        assert_eq!(StateNote::all(&notes, StateNoteKind::Promised).count(), 0);
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_an_error_or_another_value() {
        let notes = sample();
        for len in 0..notes.len() - 32 {
            assert!(read(&notes[..len]).is_err(), "{len}");
        }
        for at in 0..notes.len() {
            for bit in 0..8 {
                let mut changed = notes.clone();
                changed[at] ^= 1 << bit;
                let _ = read(&changed);
            }
        }
    }

    #[test]
    fn a_required_part_that_is_unknown_is_refused_and_another_is_skipped() {
        let with = |kind: u16| {
            let mut notes = sample();
            // The first part's kind, and the second's.
            notes[24 + FRONT..][..2].copy_from_slice(&kind.to_le_bytes());
            notes
        };
        assert_eq!(read(&with(99 | REQUIRED)), Err(StateError::Unknown(99, 1)));
        assert_eq!(read(&with(99)), Err(StateError::Missing("CMOS clock")));
        assert_eq!(read(&with(StatePart::Pit as u16)), Err(StateError::Missing("CMOS clock")));
        let twice = with(StatePart::Pit as u16);
        let note = StateNote::read(StateNote::all(&twice, StateNoteKind::Devices).next().unwrap())
            .unwrap();
        let found = note.part(StatePart::Pit, 2, StateReader::bool);
        assert_eq!(found, Err(StateError::Field("interval timer")));
    }

    #[test]
    fn another_version_of_note_or_part_is_refused() {
        let mut notes = sample();
        notes[24] = 2;
        assert_eq!(read(&notes), Err(StateError::Version(2)));
        let mut notes = sample();
        notes[24 + FRONT + 2] = 3;
        assert_eq!(read(&notes), Err(StateError::Unknown(20, 3)));
    }

    #[test]
    fn a_part_with_more_than_its_fields_is_refused() {
        let notes = sample();
        let note = StateNote::read(StateNote::all(&notes, StateNoteKind::Devices).next().unwrap())
            .unwrap();
        let short = note.part(StatePart::Rtc, 1, StateReader::u8);
        assert_eq!(short, Err(StateError::Field("CMOS clock")));
        let long = note.part(StatePart::Pit, 2, StateReader::u32);
        assert_eq!(long, Err(StateError::Short("interval timer")));
    }

    #[test]
    fn numbers_and_names_are_each_parts_own() {
        let mut numbers = StatePart::ALL.map(|part| part as u16);
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]) && numbers[18] < REQUIRED);
        let mut names = StatePart::ALL.map(StatePart::name);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
