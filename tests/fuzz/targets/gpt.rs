//! A partition table: usable entries lie within the disk and share no sector, and a new table is
//! read as it was made.
#![no_main]

use fuzz::Input;
use kernel::block::SectorRange;
use kernel::block::gpt::make::{NewPart, NewSpace, place, table};
use kernel::block::gpt::{GptFinding, Guid, read};
use libfuzzer_sys::fuzz_target;

const SECTORS: usize = 96;

fuzz_target!(|bytes: &[u8]| {
    let input = &mut Input::new(bytes);
    new_table(input.u32(), &input.array::<8>());
    let mut disk = vec![0; SECTORS * 512];
    let spaces = [(36, 3), (40, 20)].map(|(first, count)| NewSpace {
        sectors: SectorRange { first, count },
        guid: Guid::from_bytes([first as u8; 16]),
        kind: NewPart::Space,
    });
    for piece in table(disk.len() as u64, Guid::from_bytes([7; 16]), &spaces) {
        disk[piece.offset as usize..][..piece.bytes.len()].copy_from_slice(&piece.bytes);
    }
    while !input.is_empty() {
        let (what, at, len) = (input.u8(), usize::from(input.u16()), input.u8() & 31);
        let from = [512, 1024, (SECTORS - 1) * 512, (SECTORS - 33) * 512][usize::from(what & 3)];
        let at = (from + at % 512).min(disk.len());
        disk[at..].iter_mut().zip(input.bytes(len.into())).for_each(|(to, b)| *to = *b);
        if what >= 0x80 {
            seal(&mut disk, 1);
            seal(&mut disk, SECTORS - 1);
        }
    }
    let found = read(SECTORS as u64, |sector, to| {
        let from =
            (sector as usize).checked_mul(512).and_then(|at| disk.get(at..)?.get(..to.len()));
        from.map(|from| to.copy_from_slice(from)).ok_or(())
    });
    let found = found.expect("only sectors of the disk are read");
    let GptFinding::Table(table, _) = found else { return };
    let usable: Vec<_> = table.entries.iter().filter_map(|entry| entry.sectors().ok()).collect();
    for (n, a) in usable.iter().enumerate() {
        assert!(a.count > 0 && a.first >= 2 && a.first + a.count < SECTORS as u64);
        let apart = |b: &SectorRange| a.first + a.count <= b.first || b.first + b.count <= a.first;
        assert!(usable[..n].iter().all(apart), "{usable:?}");
    }
});

/// Sets the checksums of the entries that a header names, and its own.
fn seal(disk: &mut [u8], sector: usize) {
    let word = |disk: &[u8], at: usize| {
        u32::from_le_bytes(*disk[sector * 512 + at..].first_chunk().expect("in the sector"))
    };
    let (at, count, size) = (word(disk, 72), word(disk, 80), word(disk, 84));
    let len = (count as usize).saturating_mul(size as usize);
    let entries = disk.get(at as usize % SECTORS * 512..).and_then(|rest| rest.get(..len));
    let entries = entries.map_or(0, crc32);
    let header = &mut disk[sector * 512..][..92];
    header[88..92].copy_from_slice(&entries.to_le_bytes());
    header[16..20].fill(0);
    let crc = crc32(header);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
}

/// CRC-32 of the UEFI specification.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

fn new_table(mib: u32, sizes: &[u8; 8]) {
    let bytes = u64::from(mib) << 12;
    let sizes: Vec<_> = sizes.iter().map(|n| u64::from(*n) << (n & 31)).collect();
    if let Ok(placed) = place(bytes, &sizes) {
        for pair in placed.windows(2) {
            assert!(pair[0].first + pair[0].count <= pair[1].first);
        }
        assert!(placed.iter().all(|range| range.first + range.count + 33 <= bytes / 512));
    }
}
