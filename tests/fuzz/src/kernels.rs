//! Small images of kernels.

const MIB: u64 = 1 << 20;

/// Returns an ELF file with one segment at 1 MiB and a PVH note that names 0x100010.
pub fn pvh() -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2, 0, 0x3e, 0, 1, 0, 0, 0]);
    [0x10_0010_u64, 64, 0].iter().for_each(|word| file.extend(word.to_le_bytes()));
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]);
    let mut header = |kind: u32, words: [u64; 6]| {
        [kind, 5].iter().for_each(|word| file.extend(word.to_le_bytes()));
        words.iter().for_each(|word| file.extend(word.to_le_bytes()));
    };
    header(1, [0xc8, MIB, MIB, 0x20, 0x3000, 4096]);
    header(4, [0xb0, 0, 0, 20, 20, 4]);
    [4_u32, 4, 18].iter().for_each(|word| file.extend(word.to_le_bytes()));
    file.extend(b"Xen\0");
    file.extend(0x10_0010_u32.to_le_bytes());
    file.resize(0xc8 + 0x20, 0xcc);
    file
}

/// Returns a bzImage with a payload of 1 KiB and a preferred address of 1 MiB.
pub fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 2048];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1f4, &64_u32.to_le_bytes());
    put(0x201, b"\x6aHdrS\x0f\x02");
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x236, &[1, 0, 0xff, 7]);
    put(0x258, &MIB.to_le_bytes());
    put(0x260, &0x2000_u32.to_le_bytes());
    image
}
