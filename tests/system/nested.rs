//! Debian and a test kernel through the whole story, on VMX in nested KVM with virtio-blk.
//!
//! This is bed C's demonstration, whose claims are the assertions. No page was wrong; both
//! partitions crashed, were dumped and run again. Both dumps are read correctly in the Linux that
//! runs the machine, by makedumpfile and by a reader of the pages.

use boot::bed::Bed;
use boot::demo::nested::demonstrate;
use boot::setup::{Permission, SetupJob};
use tests::Case;

pub(crate) const CASES: &[Case] = &[Case {
    name: "debian_and_a_test_kernel_crash_and_come_back_and_their_dumps_are_read",
    beds: &[Bed::Nested, Bed::Kvm],
    needs: &[SetupJob::Guest, SetupJob::Readers],
    run: |bed| demonstrate(bed, Permission::Refuse, &format!("story-{}", bed.name())),
}];
