//! The answers that never change, computed once. Guests execute CPUID again and again only because
//! it serialises, and the host's own CPUID is slow: under another hypervisor it is an exit.

use super::{ApicMode, CpuidLeaf, EXTENDED, GuestView, LAST_BASIC, LAST_EXTENDED, TscRate, answer};

const BASIC: usize = LAST_BASIC as usize + 1;
const EXTENSIONS: usize = (LAST_EXTENDED - EXTENDED) as usize + 1;

/// Answers by leaf; `None` where the answer also depends on the subleaf or the guest.
#[derive(Clone, Debug)]
pub struct FixedAnswers {
    basic: [Option<CpuidLeaf>; BASIC],
    extended: [Option<CpuidLeaf>; EXTENSIONS],
}

impl FixedAnswers {
    /// Computes all of them from `host`.
    pub fn new(host: &dyn Fn(u32, u32) -> CpuidLeaf, rate: TscRate) -> Self {
        let nothing = GuestView { cr4: 0, xcr0: 0, apic: ApicMode::Disabled, rate };
        let fixed = |leaf| is_fixed(leaf).then(|| answer(leaf, 0, host, &nothing));
        Self {
            basic: core::array::from_fn(|index| fixed(index as u32)),
            extended: core::array::from_fn(|index| fixed(EXTENDED + index as u32)),
        }
    }

    /// Returns the answer to `leaf`, the same for every subleaf, if it never changes.
    #[inline(always)]
    pub fn get(&self, leaf: u32) -> Option<&CpuidLeaf> {
        match leaf {
            0..=LAST_BASIC => self.basic[leaf as usize].as_ref(),
            EXTENDED..=LAST_EXTENDED => self.extended[(leaf - EXTENDED) as usize].as_ref(),
            _ => None,
        }
    }
}

/// Tells whether [`answer`] looks neither at the subleaf nor at the guest's registers.
const fn is_fixed(leaf: u32) -> bool {
    !matches!(leaf, 1 | 4 | 7 | 0xb | 0xd | 0x8000_0001)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host whose every leaf and subleaf reads differently.
    fn host(leaf: u32, subleaf: u32) -> CpuidLeaf {
        let word =
            |n: u32| (leaf ^ n).wrapping_mul(0x9e37_79b9) ^ subleaf.wrapping_mul(0x85eb_ca6b);
        CpuidLeaf::new(word(1) | 0xff, word(2), word(3), word(4))
    }

    #[test]
    fn a_fixed_answer_is_the_answer_to_every_subleaf_in_every_state_of_the_guest() {
        let rate = TscRate::new(2_000_000_000);
        let answers = FixedAnswers::new(&host, rate);
        let mut found = 0;
        for leaf in (0..0x20).chain(0x4000_0000..0x4000_0020).chain(0x8000_0000..0x8000_0020) {
            let Some(fixed) = answers.get(leaf) else { continue };
            found += 1;
            for (subleaf, cr4, xcr0, apic) in [
                (0, 0, 1, ApicMode::Disabled),
                (1, u64::MAX, 7, ApicMode::XApic),
                (u32::MAX, 1 << 18, 3, ApicMode::X2Apic),
            ] {
                assert_eq!(
                    *fixed,
                    answer(leaf, subleaf, &host, &GuestView { cr4, xcr0, apic, rate }),
                    "leaf {leaf:#x}"
                );
            }
        }
        assert_eq!(found, BASIC - 5 + EXTENSIONS - 1);
    }

    #[test]
    fn what_depends_on_more_than_the_leaf_is_not_fixed() {
        let answers = FixedAnswers::new(&host, TscRate::new(2_000_000_000));
        for leaf in [1, 4, 7, 0xb, 0xd, 0xe, 0x4000_0000, 0x8000_0001, 0x8000_0009, u32::MAX] {
            assert_eq!(answers.get(leaf), None, "leaf {leaf:#x}");
        }
    }
}
