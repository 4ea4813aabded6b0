//! An unmodified Debian, promised twice the memory there is: pages, panics, and is running again before its dump is complete.
//!
//! This is the demonstration itself, whose claims are the assertions: no page wrong, a restart with pages still to drain, every
//! block of the dump right, the panic in makedumpfile's log, the worker's pages found by drgn.

use boot::bed::Bed;
use boot::commands::demo::demonstrate;
use boot::demo::Scale;
use boot::setup::{Job, Permission};
use tests::Case;

pub const CASES: &[Case] = &[
    Case {
        name: "debian_pages_panics_restarts_and_its_dump_is_read",
        beds: &[Bed::Qemu, Bed::Kvm],
        needs: &[Job::Guest, Job::Readers],
        run: |bed| demonstrate(bed, Permission::Refuse, &format!("demo-test-{}", bed.name()), Scale::of(bed).untimed()),
    },
    // A boot there takes a minute and more of CPU time: the successor's second one is left to `cargo run -- --bed bochs`.
    Case {
        name: "debian_panics_beside_debian_on_vmx_and_its_dump_is_read",
        beds: &[Bed::Bochs],
        needs: &[Job::Guest, Job::Readers],
        run: |bed| demonstrate(bed, Permission::Refuse, "demo-test-bochs", Scale::of(bed).untimed().to_the_dump()),
    },
];
