//! PCI functions with any configuration space: the walks end, and capabilities lie behind the
//! header.
#![no_main]
// UNSAFETY: the trait has an unsafe method; this bus has no shared state to race for.
#![expect(unsafe_code)]

use fuzz::Input;
use kernel::pci::capability::capabilities;
use kernel::pci::enumerate::functions;
use kernel::pci::msix::MsixCapability;
use libfuzzer_sys::fuzz_target;
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

/// A few functions' configuration space; each function beyond them is absent.
#[derive(Clone)]
struct AnyBus(Vec<([u8; 2], [u8; 256])>);

impl ConfigurationAccess for AnyBus {
    fn read_word(&self, at: DeviceFunction, register: u8) -> u32 {
        let key = [at.bus, at.device << 3 | at.function];
        let found = self.0.iter().find(|(place, _)| *place == key);
        let word = found.and_then(|(_, space)| space[usize::from(register & !3)..].first_chunk());
        word.map_or(!0, |word| u32::from_le_bytes(*word))
    }
    fn write_word(&mut self, _: DeviceFunction, _: u8, _: u32) {}
    unsafe fn unsafe_clone(&self) -> Self {
        self.clone()
    }
}

fuzz_target!(|bytes: &[u8]| {
    let input = &mut Input::new(bytes);
    let mut bus = AnyBus(Vec::new());
    while !input.is_empty() && bus.0.len() < 8 {
        let (place, mut space) = (input.array(), [0; 256]);
        space[..64].copy_from_slice(&input.array::<64>());
        let len = usize::from(input.u8()) % 192;
        space[64..].iter_mut().zip(input.bytes(len)).for_each(|(to, byte)| *to = *byte);
        bus.0.push((place, space));
    }
    let mut found = Vec::new();
    functions(&bus, |at, _| found.push(at));
    assert!(found.iter().enumerate().all(|(n, at)| !found[..n].contains(at)));
    for at in found {
        let Ok(list) = capabilities(&bus, at) else { continue };
        assert!(list.iter().all(|entry| entry.offset >= 64));
        if let Some(msix) = MsixCapability::find(&bus, at, &list) {
            assert!((16..=2048 * 16).contains(&msix.table_len()) && msix.bar < 8);
        }
    }
});
