//! The hypervisor's own checks, each started by a word on its command line.

use anyhow::Result;
use boot::bed::{Bed, BedMachine};
use std::path::PathBuf;
use std::time::Duration;
use tests::{Case, expect_success, machine};

const LIMIT: Duration = Duration::from_secs(180);
const DISK_BYTES: u64 = 64 << 20;

pub const CASES: &[Case] = &[
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
    let scratch = Scratch::new("selftest-disk.img")?;
    machine.disks = vec![scratch.0.clone()];
    finish(machine, "disk")
}

fn finish(mut machine: BedMachine, name: &str) -> Result<()> {
    machine.append = format!("selftest={name}");
    expect_success(machine.start()?, LIMIT)
}

/// A blank disk image that is removed with its test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("tidepool-{}-{name}", std::process::id()));
        std::fs::File::create(&path)?.set_len(DISK_BYTES)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
