//! The attempts of a hostile guest: instructions generated from tables of dangerous ones, and
//! registers full of meaningful addresses.

use guests::attempt::{CODE_BYTES, REGISTERS};
use guests::instr::control_registers;

const RAX: usize = 0;
const RCX: usize = 2;
const RDX: usize = 3;
const RSI: usize = 5;
const RDI: usize = 6;

const PORTS: [u16; 24] = [
    0x20, 0x21, 0x40, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0xa1, 0x3f8, 0x3f9, 0x3fb, 0x3fd,
    0x505, 0x510, 0x511, 0x514, 0x518, 0x5e0, 0x601, 0xcf8, 0xcfc,
];
/// Ports that would end the test instead of the incarnation.
const SPARED_PORTS: [core::ops::RangeInclusive<u16>; 3] =
    [0xf0..=0xf7, 0x5de..=0x5e3, 0x5fe..=0x600];
const MSRS: [u32; 28] = [
    0x10,
    0x11,
    0x12,
    0x17,
    0x1b,
    0x3a,
    0x8b,
    0xfe,
    0x174,
    0x175,
    0x176,
    0x179,
    0x1a0,
    0x1d9,
    0x200,
    0x277,
    0x2ff,
    0x480,
    0x6e0,
    0x4b56_4d00,
    0x4b56_4d01,
    0x4b56_4d02,
    0xc000_0080,
    0xc000_0081,
    0xc000_0084,
    0xc000_0100,
    0xc001_0117,
    0xc000_0103,
];
/// Instructions of two and three bytes that are privileged, virtualisation's, or undefined.
#[rustfmt::skip]
const PRIVILEGED: [&[u8]; 40] = [
    &[0x0f, 0x01, 0xc1], &[0x0f, 0x01, 0xc2], &[0x0f, 0x01, 0xc3], &[0x0f, 0x01, 0xc4],
    &[0x0f, 0x01, 0xc8],
    &[0x0f, 0x01, 0xc9], &[0x0f, 0x01, 0xca], &[0x0f, 0x01, 0xcb], &[0x0f, 0x01, 0xd0],
    &[0x0f, 0x01, 0xd1],
    &[0x0f, 0x01, 0xd4], &[0x0f, 0x01, 0xd8], &[0x0f, 0x01, 0xd9], &[0x0f, 0x01, 0xda],
    &[0x0f, 0x01, 0xdb],
    &[0x0f, 0x01, 0xdc], &[0x0f, 0x01, 0xdd], &[0x0f, 0x01, 0xde], &[0x0f, 0x01, 0xdf],
    &[0x0f, 0x01, 0xf8],
    &[0x0f, 0x01, 0xf9], &[0x0f, 0x01, 0xfa], &[0x0f, 0x01, 0xfb], &[0x0f, 0x05], &[0x0f, 0x06],
    &[0x0f, 0x07], &[0x0f, 0x08],
    &[0x0f, 0x09], &[0x0f, 0x31], &[0x0f, 0x33], &[0x0f, 0x34], &[0x0f, 0x35], &[0x0f, 0x78, 0xc3],
    &[0x0f, 0x79, 0xc3],
    &[0x0f, 0xaa], &[0xf1], &[0xf3, 0x0f, 0xc7, 0x30], &[0x0f, 0xc7, 0x30],
    &[0x66, 0x0f, 0x38, 0x82, 0x00], &[0xfb, 0xf4],
];
/// Opcodes with a memory operand, or string forms: some that device emulation handles, many that it
/// does not.
#[rustfmt::skip]
const MEMORY: [&[u8]; 40] = [
    &[0x8a], &[0x8b], &[0x88], &[0x89], &[0xc6], &[0xc7], &[0x0f, 0xb6], &[0x0f, 0xb7],
    &[0x0f, 0xbe], &[0x0f, 0xbf], &[0x63],
    &[0xa4], &[0xa5], &[0xaa], &[0xab], &[0xac], &[0xad], &[0xa6], &[0xae], &[0x86], &[0x87],
    &[0x0f, 0xb0], &[0x0f, 0xb1],
    &[0xf6], &[0xf7], &[0x00], &[0x01], &[0x31], &[0x09], &[0x21], &[0x39], &[0x85], &[0x0f, 0xab],
    &[0x0f, 0x10],
    &[0x0f, 0x11], &[0x0f, 0xc7], &[0xff], &[0xd9], &[0x0f, 0x01], &[0x0f, 0xae],
];

/// Numbers derived from a seed (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Self(seed | 1 << 63);
        for _ in 0..16 {
            random.any();
        }
        random
    }

    fn any(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.any() >> 16) % end
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// Code and registers.
pub(crate) struct Attempt {
    pub registers: [u64; REGISTERS],
    pub code: CodeBuffer,
}

/// Code under construction.
pub(crate) struct CodeBuffer {
    bytes: [u8; CODE_BYTES],
    len: usize,
}

impl CodeBuffer {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

impl core::ops::Deref for CodeBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl core::fmt::Debug for CodeBuffer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        (**self).fmt(f)
    }
}

/// Generates attempts for a machine with this end of RAM.
pub(crate) struct Attacker {
    ram_end: u64,
}

impl Attacker {
    pub(crate) fn new(ram_end: u64) -> Self {
        Self { ram_end }
    }

    pub(crate) fn next(&self, random: &mut Random) -> Attempt {
        let registers = core::array::from_fn(|_| self.number(random));
        let mut attempt =
            Attempt { registers, code: CodeBuffer { bytes: [0; CODE_BYTES], len: 0 } };
        match random.below(100) {
            0..20 => self.port(random, &mut attempt),
            20..35 => self.register(random, &mut attempt),
            35..40 => self.cpuid(random, &mut attempt),
            40..47 => self.control(random, &mut attempt),
            47..75 => self.device(random, &mut attempt),
            75..85 => attempt.code.push(random.one_of(&PRIVILEGED)),
            85..88 => attempt.code.push(&[0xff, 0xe0]),
            _ => self.noise(random, &mut attempt),
        }
        attempt
    }

    /// Returns an address with a meaning to the machine, or close to one.
    fn address(&self, random: &mut Random) -> u64 {
        let near =
            |base: u64, random: &mut Random| base.wrapping_add(random.below(64)).wrapping_sub(32);
        match random.below(12) {
            0 => 0xfee0_0000 + random.below(0x40) * 16 + random.below(2) * random.below(16),
            1 => 0xfec0_0000 + random.below(0x20) * 16,
            2 => 0xfeb0_0000 + random.below(0x40) * 4 + random.below(2) * random.below(4),
            3 => 0xfeb0_0000 + random.below(0x4000),
            4 => near(self.ram_end, random),
            5 => self.ram_end + random.below(0x1000_0000),
            6 => 0xc000_0000 + random.below(0x4000_0000),
            7 => near(1 << 32, random),
            8 => near(0x8000_0000_0000, random),
            9 => 0xa_0000 + random.below(0x6_0000),
            10 => (8 << 20) + random.below(self.ram_end.saturating_sub(8 << 20).max(1)),
            _ => random.any(),
        }
    }

    fn number(&self, random: &mut Random) -> u64 {
        match random.below(4) {
            0 => random.any(),
            1 => random.below(32),
            2 => 1 << random.below(64),
            _ => self.address(random),
        }
    }

    fn port(&self, random: &mut Random, attempt: &mut Attempt) {
        let port = loop {
            let port = match random.below(4) {
                0 => random.any() as u16,
                _ => random.one_of(&PORTS),
            };
            if !SPARED_PORTS.iter().any(|spared| spared.contains(&port)) {
                break port;
            }
        };
        attempt.registers[RDX] = u64::from(port);
        if (0x514..=0x51b).contains(&port) {
            attempt.registers[RAX] = u64::from((self.address(random) as u32).swap_bytes());
        }
        if random.below(4) == 0 {
            attempt.registers[RSI] = self.address(random);
            attempt.registers[RDI] = self.address(random);
            attempt.registers[RCX] = random.below(40);
            if random.below(2) == 0 {
                attempt.code.push(&[0xf3]);
            }
            attempt.code.push(random.one_of(&[
                &[0x6c][..],
                &[0x6d],
                &[0x66, 0x6d],
                &[0x6e],
                &[0x6f],
                &[0x66, 0x6f],
            ]));
        } else {
            attempt.code.push(random.one_of(&[
                &[0xec][..],
                &[0xed],
                &[0x66, 0xed],
                &[0xee],
                &[0xef],
                &[0x66, 0xef],
            ]));
        }
    }

    fn register(&self, random: &mut Random, attempt: &mut Attempt) {
        let number = match random.below(8) {
            0 => random.any() as u32,
            1 => 0x800 + random.below(0x40) as u32,
            2 => random.below(0x800) as u32,
            3 => 0xc000_0000 + random.below(0x200) as u32,
            _ => random.one_of(&MSRS),
        };
        attempt.registers[RCX] = u64::from(number);
        if random.below(2) == 0 {
            // An address with an enable bit, for registers that have one.
            let value = self.address(random) | random.below(2);
            (attempt.registers[RAX], attempt.registers[RDX]) = (value & 0xffff_ffff, value >> 32);
        }
        attempt.code.push(random.one_of(&[&[0x0f, 0x30], &[0x0f, 0x32]]));
    }

    fn cpuid(&self, random: &mut Random, attempt: &mut Attempt) {
        let anywhere = random.any() as u32;
        let base = random.one_of(&[0, 0x4000_0000, 0x8000_0000, anywhere]);
        attempt.registers[RAX] = u64::from(base.wrapping_add(random.below(0x30) as u32));
        attempt.code.push(&[0x0f, 0xa2]);
    }

    /// Flips a bit of a control or debug register, or loads a random value.
    fn control(&self, random: &mut Random, attempt: &mut Attempt) {
        let (cr0, cr3, cr4) = control_registers();
        let (number, old) = random.one_of(&[(0, cr0), (3, cr3), (4, cr4), (8, 0), (2, 0)]);
        attempt.registers[RAX] = match random.below(6) {
            0 => self.number(random),
            _ => old ^ 1 << random.below(40),
        };
        if number == 8 {
            attempt.code.push(&[0x44]);
        }
        let opcode = random.one_of(&[0x22, 0x22, 0x22, 0x20, 0x23, 0x21]);
        attempt.code.push(&[0x0f, opcode, 0xc0 | (number % 8) << 3]);
    }

    fn device(&self, random: &mut Random, attempt: &mut Attempt) {
        for register in [RAX, RSI, RDI] {
            attempt.registers[register] = self.address(random);
        }
        attempt.registers[RCX] = random.below(20);
        for _ in 0..random.below(3) {
            let prefix = random.one_of(&[0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x64]);
            attempt.code.push(&[prefix]);
        }
        if random.below(3) == 0 {
            attempt.code.push(&[0x48 | random.below(8) as u8]);
        }
        attempt.code.push(random.one_of(&MEMORY));
        // A ModRM byte for [rax], [rsi] or [rdi] with any register or opcode extension; then bytes
        // for an immediate.
        let operand = random.one_of(&[0_u8, 6, 7]);
        attempt.code.push(&[operand | (random.below(8) as u8) << 3]);
        attempt.code.push(&(random.any() as u32).to_le_bytes());
    }

    fn noise(&self, random: &mut Random, attempt: &mut Attempt) {
        const HLT: u8 = 0xf4;
        const CLI: u8 = 0xfa;
        for _ in 0..1 + random.below(15) {
            let byte = random.any() as u8;
            if byte != HLT && byte != CLI {
                attempt.code.push(&[byte]);
            }
        }
    }
}
