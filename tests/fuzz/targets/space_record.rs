//! A record of a paging space, and the two copies: a record that was read is written back so that
//! it reads the same.
#![no_main]

use fuzz::records::{CAPACITY, sample, seal_record};
use kernel::addr::PageIndex;
use kernel::space::copies::RecordSequence;
use kernel::space::recovery::{RecoveryAction, recovery};
use kernel::space::{DeviceContent, SpaceRecord};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The input's bytes change the sample's: most random records have a wrong field early.
    let mut record = sample().encode();
    record.iter_mut().zip(bytes).for_each(|(old, new)| *old ^= new);
    let _ = SpaceRecord::decode(&record, CAPACITY);
    seal_record(&mut record);
    let Ok(read) = SpaceRecord::decode(&record, CAPACITY) else { return };
    assert_eq!(SpaceRecord::decode(&read.encode(), CAPACITY), Ok(read.clone()));
    if let Some(contents) = &read.contents {
        let pages = contents.layout.pages();
        assert!(contents.gfn_of(PageIndex(pages - 1)).is_some());
        assert_eq!(contents.gfn_of(PageIndex(pages)), None);
        let sum: u64 = contents.ranges.iter().map(|range| range.count).sum();
        assert_eq!(sum, u64::from(pages));
        assert!(read.missing.count() <= pages && read.drain.progress <= pages);
        assert!(contents.layout.blocks().end() <= CAPACITY);
    }
    assert!(RecordSequence(read.sequence).next(1).0 > read.sequence);
    if let RecoveryAction::Reclaim(next) = recovery(&DeviceContent::Space(read)) {
        assert_eq!(SpaceRecord::decode(&next.encode(), CAPACITY), Ok(next));
    }
});
