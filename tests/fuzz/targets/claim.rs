//! Claims on a space: a claim reads back, and a start that takes a space never takes it with an
//! epoch that it has seen.
#![no_main]

use fuzz::Input;
use kernel::mm::crc::crc32c;
use kernel::space::Uuid;
use kernel::space::claim::{CLAIM_LEN, ClaimSector, ClaimSectors, PAGE_LEN, SpaceClaim};
use kernel::space::holding::{BeatVerdict, SpaceHolding};
use kernel::space::succession::Succession;
use kernel::space::taking::{ClaimLook, SpaceTaking, TakingStep};
use kernel::time::Ns;
use libfuzzer_sys::fuzz_target;

const ME: Uuid = Uuid([9; 16]);

fuzz_target!(|bytes: &[u8]| {
    let input = &mut Input::new(bytes);
    let (mut page, mut taking, mut now) = ([0; PAGE_LEN], SpaceTaking::new(ME), Ns::ZERO);
    while !input.is_empty() {
        let what = input.u8();
        let sector = usize::from(what >> 7) * 2048;
        match what % 4 {
            0 => page[sector..sector + 40].copy_from_slice(&input.array::<40>()),
            1 => {
                let (node, epoch) = (Uuid([input.u8(); 16]), u64::from(input.u32()));
                let claim = SpaceClaim { node, epoch, beat: input.u8().into() };
                page[SpaceClaim::offset(epoch)..][..CLAIM_LEN].copy_from_slice(&claim.encode());
            }
            2 => {
                let crc = crc32c(&page[sector..sector + CLAIM_LEN - 4]).0.to_le_bytes();
                page[sector + CLAIM_LEN - 4..sector + CLAIM_LEN].copy_from_slice(&crc);
            }
            _ => page[sector + usize::from(input.u16()) % CLAIM_LEN] = input.u8(),
        }
        check_sectors(&page);
        let claims = ClaimSectors::decode(&page);
        let asked_ns = now;
        now = now.saturating_add(Ns::new(u64::from(input.u16()) << 20));
        let look =
            ClaimLook { claims, record_epoch: u64::from(input.u16()), asked_ns, seen_ns: now };
        match taking.looked(&look) {
            TakingStep::Write(claim) => {
                assert!(claim.node == ME && claim.epoch > claims.epoch().max(look.record_epoch));
                let place = &mut page[SpaceClaim::offset(claim.epoch)..][..CLAIM_LEN];
                place.copy_from_slice(&claim.encode());
                now = now.saturating_add(Ns::new(u64::from(input.u16()) << 14));
                assert!(matches!(taking.wrote(now), TakingStep::Look(_)));
            }
            TakingStep::Own(claim) => return check_owner(&look, claim, now),
            TakingStep::InUse(_) | TakingStep::Exhausted => return,
            TakingStep::Look(_) => {}
        }
    }
});

/// The last look before a space is owned shows its claim, and no beat confirms it beside a later
/// owner's mark.
fn check_owner(look: &ClaimLook, claim: SpaceClaim, now: Ns) {
    assert_eq!(look.claims.at(claim.epoch), ClaimSector::Claim(claim));
    Succession::of(&look.claims, ME, now);
    let is_later = |mark: &ClaimSector| match mark {
        ClaimSector::Claim(other) | ClaimSector::Released(other) => {
            other.node != ME && other.epoch >= claim.epoch
        }
        ClaimSector::Empty | ClaimSector::Torn(_) => false,
    };
    let mut holding = SpaceHolding::new(claim, now);
    if matches!(holding.looked(look, now), BeatVerdict::Confirmed { .. }) {
        assert!(!look.claims.marks().iter().any(is_later) && look.record_epoch <= claim.epoch);
    }
}

fn check_sectors(page: &[u8; PAGE_LEN]) {
    for at in [0, 2048] {
        let bytes: &[u8; CLAIM_LEN] = page[at..].first_chunk().expect("in the page");
        let again = match ClaimSector::decode(bytes) {
            ClaimSector::Claim(claim) => ClaimSector::decode(&claim.encode()),
            ClaimSector::Released(claim) => ClaimSector::decode(&ClaimSector::released(&claim)),
            other => other,
        };
        assert_eq!(ClaimSector::decode(bytes), again);
    }
}
