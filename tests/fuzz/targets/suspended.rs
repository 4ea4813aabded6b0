//! The notes of a suspended partition, of which any bytes are changed: they are refused, or make a
//! machine whose devices are saved as the same bytes again and take any access, and sums of tables
//! whose pieces lie in their tables.
#![no_main]

use fuzz::Input;
use kernel::config::{DeviceSwitch, GuestDevices};
use kernel::dump::hot_list::HotList;
use kernel::dump::state_note::{StateNote, StateNoteKind, StatePart, StateWriter};
use kernel::dump::table_sums::{DumpTable, TableSums};
use kernel::mm::layout::RamLayout;
use kernel::partition::cpuid::CpuidLeaf;
use kernel::partition::devices::Platform;
use kernel::partition::devices::clock::{GuestClock, TscRate};
use kernel::partition::devices::lapic::ApicMode;
use kernel::partition::devices::state::ResumeMoment;
use kernel::partition::saved::{ResumeHost, SavedMachine};
use kernel::space::SpaceLayout;
use kernel::time::Ticks;
use kernel::virt::{AccessWidth, Backend};
use libfuzzer_sys::fuzz_target;

const NOW: Ticks = Ticks::new(1 << 40);
const RAM: u64 = 1 << 20;
/// Devices on the bus.
const DEVICES: GuestDevices = GuestDevices { rng: DeviceSwitch::On };
/// Pages of the memory whose tables have sums.
const PAGES: u32 = 600;

fn moment() -> ResumeMoment {
    ResumeMoment { now: NOW, rate: TscRate::new(1_000_000_000), unix_ns: 1 << 60 }
}

/// The devices of a guest that has just started.
fn devices() -> Vec<u8> {
    let clock = GuestClock { rate: moment().rate, start: NOW, unix_ns_at_start: 1 << 60 };
    let layout = RamLayout::new(RAM).expect("whole pages");
    let mut platform = Platform::new(clock, &layout, ApicMode::XApic);
    platform.plug(DEVICES);
    saved(&platform)
}

fn saved(platform: &Platform) -> Vec<u8> {
    let mut out = StateWriter::default();
    platform.save(&mut out, NOW);
    out.finish().expect("a heap")
}

/// A vCPU and a promise whose parts have contents from the input.
fn others(input: &mut Input<'_>) -> Vec<u8> {
    let mut out = StateWriter::default();
    let mut note = |kind, parts: &[(StatePart, usize)]| {
        out.note(kind, 0, |note| {
            for (part, len) in parts {
                let mut content = input.bytes(*len).to_vec();
                content.resize(len.saturating_sub(usize::from(input.u8() & 1)), 0);
                note.part(*part, 1, |part| part.bytes(&content));
            }
        });
    };
    // The sizes of format version 1.
    note(
        StateNoteKind::Vcpu,
        &[
            (StatePart::Registers, 437),
            (StatePart::Events, 96),
            (StatePart::Extended, 588),
            (StatePart::Msrs, 400),
        ],
    );
    note(StateNoteKind::Promised, &[(StatePart::Backend, 1), (StatePart::Cpuid, 152)]);
    out.finish().expect("a heap")
}

fuzz_target!(|bytes: &[u8]| {
    let input = &mut Input::new(bytes);
    let mut notes = devices();
    for _ in 0..input.u8() % 8 {
        let at = usize::from(input.u16()) % notes.len();
        notes[at] = input.u8();
    }
    let layout = RamLayout::new(RAM).expect("whole pages");
    if let Some(descriptor) = StateNote::all(&notes, StateNoteKind::Devices).next()
        && let Ok((mut platform, _)) = Platform::restored(descriptor, &layout, DEVICES, moment())
    {
        let again = saved(&platform);
        let descriptor = StateNote::all(&again, StateNoteKind::Devices).next().expect("a note");
        let (same, _) =
            Platform::restored(descriptor, &layout, DEVICES, moment()).expect("its own notes");
        assert_eq!(saved(&same), again);
        for _ in 0..16 {
            platform.advance(NOW + Ticks::new(u64::from(input.u32()) << 8));
            platform.pio_read(input.u16(), AccessWidth::Byte, || NOW);
            let _ = (platform.interrupt(), platform.next_deadline());
        }
    }
    let backend = input.one_of(&[Backend::Vmx, Backend::Svm]);
    let host = ResumeHost {
        backend,
        cpuid: &|_, _| CpuidLeaf::new(0, 0, 0, 0),
        xcr0: 7,
        devices: DEVICES,
        at: moment(),
    };
    notes.extend(others(input));
    let _ = SavedMachine::read(&notes, &layout, &host);
    let rest = input.rest();
    let _ = SavedMachine::read(rest, &layout, &host);
    sums(rest);
});

/// Reads the bytes as sums of tables: of any content, in a part whose length is right.
fn sums(bytes: &[u8]) {
    let layout = SpaceLayout::for_pages(1 << 30, PAGES).expect("a size");
    let mut out = StateWriter::default();
    out.note(StateNoteKind::Memory, 0, |note| {
        note.part(StatePart::TableSums, 1, |part| part.bytes(bytes));
        note.part(StatePart::HotPages, 1, |part| part.bytes(bytes));
    });
    let notes = out.finish().expect("a heap");
    for notes in [&*notes, bytes] {
        let note = StateNote::all(notes, StateNoteKind::Memory).next();
        let Some(Ok(note)) = note.map(StateNote::read) else { continue };
        assert!(HotList::read(&note).map_or(0, |list| list.windows().count()) <= bytes.len() / 6);
        let Ok(Some(sums)) = TableSums::read(&note, &layout) else { continue };
        assert!(sums.blocks() <= PAGES.into());
        for at in 0..u64::from(PAGES) * 4 {
            let piece = sums.piece_at(&layout, DumpTable::Checksums, at);
            assert!(piece.start >= layout.checksums().start && piece.len <= TableSums::MOST);
            let _ = sums.is_right(DumpTable::Checksums, piece, &bytes[..bytes.len().min(64)]);
        }
    }
}
