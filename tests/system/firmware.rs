//! The hypervisor from a USB stick, as on a real machine: through GRUB, with BIOS and with UEFI
//! firmware.
//!
//! OVMF puts the disks' registers near 1 TiB, beyond the direct map.

use anyhow::{Result, ensure};
use boot::bed::{Bed, Firmware, Medium};
use boot::dump::Dump;
use boot::setup::SetupJob;
use boot::volume::VolumeAccess;
use tests::Case;
use tests::scene::{Play, Scene, Setting};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a_stick_starts_on_bios_and_its_partition_dumps_to_a_disk",
        beds: &[Bed::Qemu],
        needs: &[SetupJob::Stick],
        run: |bed| live_through(bed, "stick-bios", Firmware::Bios),
    },
    Case {
        name: "a_stick_starts_on_uefi_and_its_partition_dumps_to_a_disk",
        beds: &[Bed::Qemu],
        needs: &[SetupJob::Uefi],
        run: |bed| live_through(bed, "stick-uefi", Firmware::Uefi),
    },
];

fn live_through(bed: Bed, name: &'static str, firmware: Firmware) -> Result<()> {
    let setting = Setting {
        memory_mib: 16,
        pool_mib: 32,
        devices_mib: &[24],
        cmdline: "paged=500 dirty=100",
        partition: "restart = \"never\"",
    };
    let scene = Scene::new(bed, name, setting)?;
    let mut machine = scene.machine()?;
    machine.medium = Medium::Stick(firmware);
    let mut play = Play::of(&machine)?;
    play.get_ready()?;
    ensure!(play.stats()?.number("page_outs")? >= 500, "nothing went to the disk");
    play.key(b'c')?;
    let disk = play.event("dump_complete")?.number("disk")?;
    play.power_off()?;
    let verdict = Dump::open(&scene.image(usize::try_from(disk)?), VolumeAccess::Read)?.verify()?;
    ensure!(verdict.right >= 600 && verdict.wrong == 0 && verdict.missing == 0, "{verdict:?}");
    Ok(())
}
