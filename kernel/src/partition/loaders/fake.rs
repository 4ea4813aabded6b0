//! Kernels for tests.

const MIB: u64 = 1 << 20;

/// An ELF file with one segment at 1 MiB and a PVH note that names 0x100010.
pub fn pvh_elf() -> Vec<u8> {
    let mut f = b"\x7fELF\x02\x01\x01".to_vec();
    f.resize(16, 0);
    f.extend([2, 0, 0x3e, 0, 1, 0, 0, 0]);
    [0x10_0010u64, 64, 0].iter().for_each(|w| f.extend(w.to_le_bytes()));
    f.extend([0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]);
    let mut header = |kind: u32, offset: u64, at: u64, file: u64, memory: u64, align: u64| {
        [kind, 5].iter().for_each(|w| f.extend(w.to_le_bytes()));
        [offset, at, at, file, memory, align].iter().for_each(|w| f.extend(w.to_le_bytes()));
    };
    header(1, 0x200, MIB, 0x100, 0x3000, 4096);
    header(4, 0x100, 0, 20, 20, 4);
    f.resize(0x100, 0);
    [4u32, 4, 18].iter().for_each(|w| f.extend(w.to_le_bytes()));
    f.extend(b"Xen\0");
    f.extend(0x10_0010u32.to_le_bytes());
    f.resize(0x200, 0);
    f.resize(0x300, 0xcc);
    f
}
