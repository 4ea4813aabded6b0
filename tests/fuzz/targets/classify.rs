//! A device's content by its ends: only a sound record makes a space, and only zeros (and what an
//! interrupted format leaves) are blank.
#![no_main]

use fuzz::Input;
use fuzz::records::{CAPACITY, sample, seal_record};
use kernel::space::claim::SpaceClaim;
use kernel::space::classify::HEAD_LEN;
use kernel::space::copies::{TAIL_LEN, damaged_copy, newest};
use kernel::space::places::{first_foreign, places};
use kernel::space::recovery::{RecoveryAction, recovery};
use kernel::space::{DeviceContent, SpaceRecord, classify};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let input = &mut Input::new(bytes);
    let (mut head, mut tail) = (vec![0; HEAD_LEN], [0; TAIL_LEN]);
    while !input.is_empty() {
        match input.u8() % 5 {
            n @ (0 | 1) => {
                let sequence = u64::from(input.u8()) * 2 + u64::from(n);
                let at = usize::from(n) * 4096;
                tail[at..at + 4096].copy_from_slice(&SpaceRecord { sequence, ..sample() }.encode());
            }
            2 => {
                let (at, len) = (usize::from(input.u16()) % TAIL_LEN, input.u8());
                tail[at..].iter_mut().zip(input.bytes(len.into())).for_each(|(to, b)| *to = *b);
            }
            3 => {
                let (at, len) = (input.u32() as usize % HEAD_LEN, input.u8());
                head[at..].iter_mut().zip(input.bytes(len.into())).for_each(|(to, b)| *to = *b);
            }
            _ => tail.as_chunks_mut::<4096>().0.iter_mut().for_each(seal_record),
        }
    }
    let class = classify(&head, &tail, CAPACITY);
    let is_zero = head.iter().chain(&tail).all(|byte| *byte == 0);
    match &class {
        DeviceContent::Space(record) => {
            assert_eq!(newest(&tail, CAPACITY).as_ref(), Ok(record));
            damaged_copy(&tail, CAPACITY);
        }
        DeviceContent::Blank => assert!(is_zero || newest(&tail, CAPACITY).is_err()),
        _ => assert!(!is_zero),
    }
    let is_blank = class == DeviceContent::Blank;
    assert_eq!(recovery(&class) == RecoveryAction::Format, is_blank);

    let capacity = u64::from(*bytes.first().unwrap_or(&0)) * 4096 + 512;
    for place in places(capacity) {
        assert!(place.start + place.len <= capacity.saturating_sub(8192));
    }
    let page = &tail[..4096];
    let found = first_foreign(SpaceClaim::start(CAPACITY).unwrap_or(0), page, CAPACITY);
    assert!(found.is_none() || page.iter().any(|byte| *byte != 0));
});
