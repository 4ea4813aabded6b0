//! The machine according to PVH's start information: memory map and command line.
//!
//! Layout: Xen's `public/arch-x86/hvm/start_info.h`, version 1.

// UNSAFETY: the start information is memory that the loader filled, named by physical address.
#![expect(unsafe_code)]

const MAGIC: u32 = 0x336e_c578;
const RAM: u32 = 1;
/// Longest command line that is read.
const CMDLINE: usize = 2048;

unsafe extern "C" {
    static __image_end: u8;
}

/// A range of RAM by physical address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RamRange {
    /// First byte.
    pub start: u64,
    /// Byte after the last.
    pub end: u64,
}

/// The machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    map: u64,
    entries: u32,
    cmdline: u64,
}

fn read<T: Copy>(address: u64) -> T {
    // SAFETY: the first 4 GiB are mapped at themselves, and the loader put plain numbers there.
    unsafe { core::ptr::read_unaligned(address as *const T) }
}

impl Machine {
    pub(crate) fn read(information: u64) -> Self {
        assert_eq!(read::<u32>(information), MAGIC, "PVH start information");
        assert!(read::<u32>(information + 4) >= 1, "version with a memory map");
        Self {
            cmdline: read(information + 24),
            map: read(information + 40),
            entries: read(information + 48),
        }
    }

    /// Returns the ranges of RAM, as the loader listed them.
    pub fn ram(&self) -> impl Iterator<Item = RamRange> + use<> {
        let map = self.map;
        (0..u64::from(self.entries))
            .map(move |n| map + 24 * n)
            .filter(|&at| read::<u32>(at + 16) == RAM)
            .map(|at| {
                let start = read::<u64>(at);
                RamRange { start, end: start + read::<u64>(at + 8) }
            })
    }

    /// Returns all RAM, in bytes.
    pub fn ram_bytes(&self) -> u64 {
        self.ram().map(|range| range.end - range.start).sum()
    }

    /// Returns the RAM for this kernel's free use: above its own image, in whole pages, below 4
    /// GiB.
    pub fn free(&self) -> RamRange {
        let image_end = (&raw const __image_end) as u64;
        // The loader's own structures may lie behind the image: leave room for them.
        let start = (image_end.max(self.map).max(self.cmdline) + (64 << 10)).next_multiple_of(4096);
        let holds = |range: &RamRange| range.start <= image_end && image_end < range.end;
        let end = self.ram().find(holds).map_or(start, |range| range.end.min(1 << 32) & !4095);
        RamRange { start: start.min(end), end }
    }

    /// Returns the RAM above 4 GiB, empty where there is none. It is reachable on a CPU with pages
    /// of 1 GiB.
    pub fn high(&self) -> RamRange {
        self.ram().find(|range| range.start >= 1 << 32).unwrap_or(RamRange { start: 0, end: 0 })
    }

    /// Returns the command line.
    pub fn cmdline(&self) -> &'static str {
        if self.cmdline == 0 {
            return "";
        }
        let length = (0..CMDLINE).take_while(|&n| read::<u8>(self.cmdline + n as u64) != 0).count();
        // SAFETY: as for `read`; nothing writes there, `free` leaves it out.
        let bytes = unsafe { core::slice::from_raw_parts(self.cmdline as *const u8, length) };
        core::str::from_utf8(bytes).unwrap_or("")
    }

    /// Returns the number behind `name=` on the command line, decimal or with 0x.
    pub fn option(&self, name: &str) -> Option<u64> {
        let value = self
            .cmdline()
            .split_ascii_whitespace()
            .find_map(|w| w.strip_prefix(name)?.strip_prefix('='))?;
        match value.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => value.parse().ok(),
        }
    }
}
