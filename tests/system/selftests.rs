//! The hypervisor's own checks, each started by a word on its command line.

use anyhow::Result;
use boot::bed::{Bed, BedMachine};
use std::time::Duration;
use tests::{Case, expect_success, machine};

const LIMIT: Duration = Duration::from_secs(180);
const DISK_BYTES: u64 = 64 << 20;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "guest_mode_behaves_as_the_manuals_say",
        beds: &[Bed::Qemu, Bed::Bochs, Bed::Nested],
        needs: &[],
        run: virt,
    },
    Case {
        name: "disks_keep_what_they_are_given",
        beds: &[Bed::Qemu, Bed::Nested],
        needs: &[],
        run: disk,
    },
];

fn virt(bed: Bed) -> Result<()> {
    let machine = machine(bed, "virt")?;
    finish(machine, "virt")
}

fn disk(bed: Bed) -> Result<()> {
    let mut machine = machine(bed, "disk")?;
    // A blank disk, which is removed with the test.
    let image = tempfile::NamedTempFile::new()?;
    image.as_file().set_len(DISK_BYTES)?;
    machine.disks = vec![image.path().to_owned()];
    finish(machine, "disk")
}

fn finish(mut machine: BedMachine, name: &str) -> Result<()> {
    machine.append = format!("selftest={name}");
    expect_success(machine.start()?, LIMIT)
}
