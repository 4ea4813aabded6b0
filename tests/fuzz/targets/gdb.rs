//! A debugger's packets, and a dump's notes and page tables behind them: each answer is a whole
//! packet.
#![no_main]

use boot::dump::gdb::memory::{PagingRegisters, PhysicalPages};
use boot::dump::gdb::notes::Notes;
use boot::dump::gdb::protocol::{DebugTarget, serve};
use fuzz::Input;
use libfuzzer_sys::fuzz_target;

struct Machine<'a> {
    notes: Notes,
    memory: &'a [u8],
}

impl PhysicalPages for Machine<'_> {
    fn page(&self, address: u64) -> Option<Box<[u8; 4096]>> {
        let at = usize::try_from(address).ok()? & 0xffff;
        let mut page = Box::new([0; 4096]);
        let bytes = self.memory.get(at / 16..)?;
        page.iter_mut().zip(bytes).for_each(|(to, byte)| *to = *byte);
        Some(page)
    }
}

impl DebugTarget for Machine<'_> {
    fn registers(&self) -> &[u8] {
        &self.notes.registers
    }
    fn memory(&self, start: u64, length: usize) -> Vec<u8> {
        let bytes = self.notes.paging.read(self, start, length);
        assert!(bytes.len() <= length);
        match self.notes.kernel {
            Some(kernel) if bytes.is_empty() => kernel.read(self, start, length),
            _ => bytes,
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let input = &mut Input::new(bytes);
    let (registers, len) = (input.array::<3>(), input.u16());
    let mut notes = Notes::parse(input.bytes(len.into()));
    if registers[0] & 1 == 1 {
        let (paged, levels) =
            (u64::from(registers[0] & 2) << 30, u64::from(registers[0] & 4) << 10);
        let cr3 = u64::from(registers[1]) << 12;
        notes.paging = PagingRegisters { cr0: paged, cr3, cr4: levels };
    }
    let machine = Machine { notes, memory: bytes };
    let mut output = Vec::new();
    let mut packets = input.rest().to_vec();
    serve(&machine, &mut packets.as_slice(), &mut output).expect("memory takes all answers");
    // The same with right checksums: a packet a line.
    let text: Vec<u8> = packets.drain(..).filter(|byte| !b"$#".contains(byte)).collect();
    for line in text.split(|byte| *byte == b'\n') {
        let sum = line.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        packets.extend([b"$", line, format!("#{sum:02x}").as_bytes()].concat());
    }
    output.clear();
    serve(&machine, &mut packets.as_slice(), &mut output).expect("memory takes all answers");
    let (packets, ends) =
        (output.iter().filter(|b| **b == b'$'), output.iter().filter(|b| **b == b'#'));
    assert!(packets.count() == ends.count() && output.is_ascii());
});
