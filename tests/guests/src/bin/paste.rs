//! Reads its console slowly to the end of transmission (0x04), and reports the number of bytes and
//! their FNV-1a hash; then writes `flood=` lines without checking whether there is room.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::kernel!(run);

#[cfg(target_os = "none")]
use guests::instr::{inb, outb, pause};

#[cfg(target_os = "none")]
fn run(machine: &guests::Machine) -> guests::TestVerdict {
    const END: u8 = 4;
    let (mut bytes, mut hash) = (0_u64, 0xcbf2_9ce4_8422_2325_u64);
    guests::log!("reads");
    loop {
        let key = key();
        if key == END {
            break;
        }
        bytes += 1;
        hash = (hash ^ u64::from(key)).wrapping_mul(0x100_0000_01b3);
        if bytes.is_multiple_of(1000) {
            (0..100_000).for_each(|_| pause());
        }
    }
    guests::log!("read {bytes} {hash:x}");
    for number in 0..machine.option("flood").unwrap_or(0) {
        write(number);
    }
    guests::pass()
}

/// Writes a line of 80 bytes that ends with `number`.
#[cfg(target_os = "none")]
fn write(number: u64) {
    const DATA: u16 = 0x3f8;
    let mut line = [b'.'; 80];
    let mut rest = number;
    for digit in line[70..78].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    line[78..].copy_from_slice(b"\r\n");
    line.iter().for_each(|&byte| outb(DATA, byte));
}

#[cfg(target_os = "none")]
fn key() -> u8 {
    const DATA: u16 = 0x3f8;
    const LINE_STATUS: u16 = 0x3fd;
    while inb(LINE_STATUS) & 1 == 0 {
        pause();
    }
    inb(DATA)
}
