use super::*;

fn region(first: u64, count: u32) -> FrameRegion {
    FrameRegion { first: Hfn::new(first), count }
}

fn owner(index: u32) -> FrameOwner {
    FrameOwner { object: ObjectId(3), index: PageIndex(index) }
}

#[test]
fn frames_of_all_regions_come_out_once_and_lowest_first() {
    let table = FrameTable::new(&[region(0x200, 2), region(0x100, 3)]).unwrap();
    let frames: Vec<Frame> = core::iter::from_fn(|| table.alloc()).collect();
    let numbers: Vec<u64> = frames.iter().map(|f| f.hfn().as_u64()).collect();
    assert_eq!(numbers, [0x100, 0x101, 0x102, 0x200, 0x201]);
    assert_eq!((table.total(), table.free_count()), (5, 0));
    frames.into_iter().for_each(|f| table.free(f));
    assert_eq!(table.free_count(), 5);
}

#[test]
fn a_frame_goes_round() {
    let table = FrameTable::new(&[region(0, 1)]).unwrap();
    let frame = table.alloc().unwrap();
    assert_eq!((table.alloc(), table.owner(frame.hfn())), (None, None));
    let hfn = table.map(frame, owner(9));
    assert_eq!((table.owner(hfn), table.owned_by(ObjectId(3))), (Some(owner(9)), 1));
    let frame = table.unmap(hfn, owner(9));
    assert_eq!((table.owner(hfn), table.owned_by(ObjectId(3))), (None, 0));
    table.free(frame);
    assert_eq!(table.free_count(), 1);
}

#[test]
#[should_panic(expected = "neither free nor in a leaf")]
fn a_frame_that_is_freed_twice_is_our_bug() {
    let table = FrameTable::new(&[region(0, 2)]).unwrap();
    let frame = table.alloc().unwrap();
    let forged = Frame { ..frame };
    table.free(frame);
    table.free(forged);
}

#[test]
#[should_panic(expected = "goes into one leaf")]
fn a_frame_in_two_leaves_is_our_bug() {
    let table = FrameTable::new(&[region(0, 2)]).unwrap();
    let frame = table.alloc().unwrap();
    let forged = Frame { ..frame };
    table.map(frame, owner(0));
    table.map(forged, owner(1));
}

#[test]
fn a_pinned_frame_is_not_claimed_and_a_claimed_frame_not_pinned() {
    let table = FrameTable::new(&[region(0, 1)]).unwrap();
    let hfn = table.map(table.alloc().unwrap(), owner(0));
    let pins = [table.pin(hfn, owner(0)).unwrap(), table.pin(hfn, owner(0)).unwrap()];
    assert_eq!((table.pins(hfn), table.claim(hfn, owner(0))), (2, Err(FrameBusyError)));
    pins.into_iter().for_each(|pin| table.unpin(pin));
    assert_eq!(table.claim(hfn, owner(0)), Ok(()));
    assert_eq!(
        (table.pin(hfn, owner(0)), table.claim(hfn, owner(0))),
        (Err(FrameBusyError), Err(FrameBusyError))
    );
    table.unclaim(hfn);
    assert_eq!(table.claim(hfn, owner(0)), Ok(()));
}

#[test]
fn a_frame_that_holds_another_page_by_now_is_not_claimed() {
    let table = FrameTable::new(&[region(0, 1)]).unwrap();
    let hfn = table.map(table.alloc().unwrap(), owner(0));
    assert_eq!(
        (table.claim(hfn, owner(1)), table.pin(hfn, owner(1))),
        (Err(FrameBusyError), Err(FrameBusyError))
    );
}

#[test]
fn a_frame_is_taken_once_from_its_own_page_and_neither_pinned_nor_claimed() {
    let table = FrameTable::new(&[region(0, 1)]).unwrap();
    let hfn = table.map(table.alloc().unwrap(), owner(0));
    assert_eq!(table.take(hfn, owner(1)), Err(FrameBusyError));
    let pin = table.pin(hfn, owner(0)).unwrap();
    assert_eq!(table.take(hfn, owner(0)), Err(FrameBusyError));
    table.unpin(pin);
    table.claim(hfn, owner(0)).unwrap();
    assert_eq!(table.take(hfn, owner(0)), Err(FrameBusyError));
    table.unclaim(hfn);
    let frame = table.take(hfn, owner(0)).unwrap();
    assert_eq!(
        (table.claim(hfn, owner(0)), table.pin(hfn, owner(0)).err()),
        (Err(FrameBusyError), Some(FrameBusyError))
    );
    assert_eq!((table.take(hfn, owner(0)), table.owned_by(ObjectId(3))), (Err(FrameBusyError), 0));
    table.put_back(frame, owner(0));
    assert_eq!((table.owner(hfn), table.owned_by(ObjectId(3))), (Some(owner(0)), 1));
    table.free(table.take(hfn, owner(0)).unwrap());
    assert_eq!(table.free_count(), 1);
}

#[test]
fn regions_that_overlap_or_need_more_than_32_bits_are_refused() {
    let error = |regions: &[FrameRegion]| FrameTable::new(regions).err();
    assert_eq!(error(&[region(0, 2), region(1, 1)]), Some(RegionError::Range));
    assert_eq!(error(&[region((1 << 32) - 1, 1)]), Some(RegionError::Range));
    assert_eq!(error(&[region(u64::MAX, 2)]), Some(RegionError::Range));
    assert_eq!(error(&[]), Some(RegionError::Count));
    assert_eq!(error(&[region(0, 0)]), Some(RegionError::Count));
    let many: Vec<FrameRegion> = (0..9).map(|n| region(n * 10, 1)).collect();
    assert_eq!(error(&many), Some(RegionError::Count));
}

#[test]
fn a_frame_costs_twelve_bytes() {
    assert_eq!(FrameTable::new(&[region(0, 100)]).unwrap().metadata_bytes(), 1200);
}

#[test]
fn two_threads_never_get_the_same_frame() {
    let table = FrameTable::new(&[region(0, 64)]).unwrap();
    let turn = || {
        for _ in 0..if cfg!(miri) { 100 } else { 2000 } {
            let Some(frame) = table.alloc() else { continue };
            let hfn = table.map(frame, owner(0));
            table.free(table.unmap(hfn, owner(0)));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(turn);
        scope.spawn(turn);
    });
    assert_eq!((table.free_count(), table.owned_by(ObjectId(3))), (64, 0));
}

#[test]
fn a_chain_comes_free_at_once_and_its_frames_go_out_before_the_others() {
    let table = FrameTable::new(&[region(0, 4)]).unwrap();
    let frames: Vec<Frame> = (0..3).filter_map(|_| table.alloc()).collect();
    let mut chain = FrameChain::new();
    frames.into_iter().for_each(|frame| table.link(&mut chain, frame));
    assert_eq!((chain.len(), table.free_count()), (3, 1));
    table.free_chain(chain);
    table.free_chain(FrameChain::new());
    assert_eq!(table.free_count(), 4);
    let numbers: Vec<u64> =
        core::iter::from_fn(|| table.alloc()).map(|frame| frame.hfn().as_u64()).collect();
    assert_eq!(numbers, [2, 1, 0, 3]);
}

#[test]
#[should_panic(expected = "neither free nor in a leaf")]
fn a_frame_in_two_chains_is_our_bug() {
    let table = FrameTable::new(&[region(0, 2)]).unwrap();
    let frame = table.alloc().unwrap();
    let forged = Frame { ..frame };
    table.link(&mut FrameChain::new(), frame);
    table.link(&mut FrameChain::new(), forged);
}
