//! Which space a partition gets.

use super::super::live::tests::{disk, owner, settle, space_on};
use super::*;
use crate::mm::layout::RamLayout;

const MIB: u64 = 1 << 20;

fn spaces(sizes: &[(u64, Residue)]) -> Spaces {
    let mut spaces = Spaces::new();
    for (n, (bytes, residue)) in sizes.iter().enumerate() {
        assert!(spaces.add(space_on(disk(n as u8, *bytes, true), *residue)).is_ok());
    }
    spaces
}

fn activate(spaces: &mut Spaces, id: u8, name: &str) {
    let space = spaces.get_mut(SpaceId(id)).unwrap();
    space.activate(owner(name), &RamLayout::new(64 << 12).unwrap()).unwrap();
    settle(space);
}

fn choose(spaces: &mut Spaces, pages: u32, name: &str) -> Result<u8, Unavailable> {
    spaces.choose(pages, Uuid::from_name(name)).map(|id| id.0)
}

#[test]
fn the_smallest_space_that_fits_is_chosen() {
    let mut s = spaces(&[(16 * MIB, Residue::Clean), (4 * MIB, Residue::Clean), (8 * MIB, Residue::Clean)]);
    assert_eq!(choose(&mut s, 64, "web"), Ok(1));
    assert_eq!(choose(&mut s, 1000, "web"), Ok(2));
    activate(&mut s, 1, "web");
    assert_eq!(choose(&mut s, 64, "web"), Ok(2), "the smallest is in use");
}

#[test]
fn what_cannot_be_had_is_explained() {
    assert_eq!(choose(&mut spaces(&[]), 1, "web"), Err(Unavailable::NoSpace));
    let mut s = spaces(&[(4 * MIB, Residue::Clean)]);
    let largest = Layout::most_pages(4 * MIB);
    assert_eq!(choose(&mut s, largest + 1, "web"), Err(Unavailable::TooLarge { largest }));
    activate(&mut s, 0, "web");
    assert_eq!(choose(&mut s, 1, "db"), Err(Unavailable::InUse { dumps: 0 }));
}

#[test]
fn a_stale_space_is_scrubbed_only_where_nothing_better_is_there() {
    let mut s = spaces(&[(4 * MIB, Residue::Stale), (8 * MIB, Residue::Clean)]);
    assert_eq!(choose(&mut s, 64, "web"), Ok(1));
    activate(&mut s, 1, "web");
    assert_eq!(choose(&mut s, 64, "db"), Err(Unavailable::Scrubbing));
    assert_eq!(choose(&mut s, 64, "db"), Err(Unavailable::Scrubbing), "one scrub is enough");
    settle(s.get_mut(SpaceId(0)).unwrap());
    assert_eq!(choose(&mut s, 64, "db"), Ok(0));
}

#[test]
fn an_unreleased_dump_keeps_its_space() {
    let mut s = spaces(&[(4 * MIB, Residue::Clean)]);
    activate(&mut s, 0, "web");
    let space = s.get_mut(SpaceId(0)).unwrap();
    let crash = crate::paging::space::Crash {
        reason: crate::paging::space::CrashReason::OPERATOR,
        detail: 0,
        time_ns: 0,
        text: arrayvec::ArrayString::new(),
    };
    space.drain(crash, crate::paging::space::Drain::default()).unwrap();
    settle(space);
    assert_eq!(choose(&mut s, 64, "web"), Err(Unavailable::InUse { dumps: 1 }));
}
