//! fw_cfg by selector, data register and DMA: an access that returns an error has changed nothing.
#![no_main]

use fuzz::{GuestRam, Input};
use kernel::partition::devices::fw_cfg::{DmaHalf, FwCfg};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let input = &mut Input::new(bytes);
    let (mut device, mut memory) = (FwCfg::new(), GuestRam::new(&[]));
    while !input.is_empty() {
        match input.u8() % 6 {
            0 => device.select(input.u16()),
            1 => _ = device.read_data(),
            2 => {
                let at = usize::from(input.u16());
                // A descriptor: select, read, skip, write and error bits, length, address.
                let control = u32::from(input.u16()) << 16 | u32::from(input.u8());
                let words = [control, u32::from(input.u16()), 0, u32::from(input.u16())];
                memory.poke(at, words.map(u32::to_be_bytes).as_flattened());
                let _ = run(&mut device, &memory, at as u32);
            }
            3 => {
                let (at, len) = (input.u16(), input.u8());
                memory.poke(at.into(), input.bytes(len.into()));
            }
            4 => memory.absent = input.u16(),
            _ => {
                let _ = device.write_dma(DmaHalf::High, input.u32(), &memory);
                let _ = run(&mut device, &memory, input.u32());
            }
        }
    }
    if let Some(note) = device.vmcoreinfo() {
        assert!(note.bytes > 0);
    }
});

fn run(device: &mut FwCfg, memory: &GuestRam, at: u32) -> Result<(), ()> {
    let before = format!("{device:?}");
    device.write_dma(DmaHalf::Low, at.swap_bytes(), memory).map_err(|_| {
        assert_eq!(format!("{device:?}"), before);
    })
}
