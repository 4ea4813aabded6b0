//! Kernels and initrds: all copies of a plan lie in RAM and do not overlap, and the plan is carried
//! out without a fault.
#![no_main]

use fuzz::Input;
use kernel::addr::Gpa;
use kernel::config::KernelModules;
use kernel::mm::guest::{GuestMemory, GuestMemoryError};
use kernel::mm::layout::RamLayout;
use kernel::partition::acpi::AcpiTables;
use kernel::partition::devices::map::BusPresence;
use kernel::partition::loaders::{
    ImageSource, LoadJob, LoadProgress, LoadRequest, memory_map, plan,
};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static ACPI: LazyLock<AcpiTables> = LazyLock::new(|| AcpiTables::new(BusPresence::Present));

struct Images<'a> {
    kernel: &'a [u8],
    initrd: &'a [u8],
}

impl ImageSource for Images<'_> {
    fn module(&self, name: &str) -> Option<&[u8]> {
        match name {
            "kernel" => Some(self.kernel),
            "initrd" => Some(self.initrd),
            _ => None,
        }
    }
}

/// RAM that only checks the addresses.
struct Checked(RamLayout);

impl GuestMemory for Checked {
    fn read(&self, gpa: Gpa, _: &mut [u8]) -> Result<(), GuestMemoryError> {
        Err(GuestMemoryError::NotRam(gpa))
    }
    fn write(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), GuestMemoryError> {
        let last = gpa.checked_add(bytes.len() as u64 - 1).expect("within the address space");
        let is_ram = |at: Gpa| self.0.index_of(at.number()).is_some();
        assert!(is_ram(gpa) && is_ram(last), "{gpa:?}");
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let input = &mut Input::new(bytes);
    let memory = input.one_of(&[4096, 1 << 20, (1 << 20) + 8192, 4 << 20, 64 << 20, 5 << 30]);
    let layout = RamLayout::new(memory).expect("whole pages");
    let initrd = vec![1; usize::from(input.u16())];
    let has_initrd = input.u8() & 1 == 1;
    let cmdline = "x".repeat(usize::from(input.u16() & 0x1fff));
    let kernel =
        KernelModules { image: "kernel".into(), initrd: has_initrd.then(|| "initrd".into()) };
    let images = Images { kernel: input.rest(), initrd: &initrd };
    let request = LoadRequest { kernel: &kernel, cmdline: &cmdline, layout: &layout, acpi: &ACPI };
    let Ok(plan) = plan(&images, &request) else { return };

    let mut ranges: Vec<_> = plan
        .copies
        .iter()
        .map(|copy| (copy.range().start, copy.range().end))
        .filter(|(start, end)| start < end)
        .collect();
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "copies overlap: {ranges:x?}");
    }
    let map = memory_map::entries(&layout, BusPresence::Present);
    assert!(map.windows(2).all(|pair| pair[0].base + pair[0].bytes <= pair[1].base));
    let mut job = LoadJob::new(plan, &kernel);
    let mut steps = 0;
    while job.step(&images, &Checked(layout), 1 << 16) == Ok(LoadProgress::More) {
        steps += 1;
        assert!(steps < 100, "each step makes progress");
    }
});
