//! What a suspended guest was promised: the back end's kind of virtualisation, and CPUID.
//!
//! A kernel reads CPUID once and relies on it. So each feature that it was shown must be there
//! where it goes on; more features do no harm.

use super::ResumeHost;
use crate::dump::state_note::{StateError, StateNote, StatePart, StateWriter};
use crate::members::letters::PROMISE_LEN;
use crate::partition::cpuid::{self, CpuidLeaf, GUEST_XCR0, GuestView};
use crate::partition::devices::clock::{SavedClock, TscRate};
use crate::partition::devices::lapic::ApicMode;
use crate::virt::Backend;
use core::fmt;

const VERSION: u16 = 1;
/// Largest difference of frequencies for a guest that keeps time by its counter alone, in parts of
/// a million. NTP corrects 500 (RFC 5905 "System Process"), and a guest without it loses nine
/// seconds a day at 100. Each of the two measurements that are compared may be wrong by 50
/// (`arch::refine`).
const MOST_PPM: u128 = 100 + 2 * 50;

/// How the answers to a leaf are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LeafRule {
    /// These registers are the same.
    Same(CpuidLeaf),
    /// Each bit of these registers that was promised is there.
    Features(CpuidLeaf),
    /// Bits 7 to 0 of EAX are at least as large, bits 15 to 8 the same.
    Addresses,
}

const ALL: u32 = u32::MAX;

/// Leaves and subleaves, their rules, and what they are for people.
const RULES: [(u32, u32, LeafRule, &str); 9] = [
    (0, 0, LeafRule::Same(CpuidLeaf::new(0, ALL, ALL, ALL)), "the CPU's vendor"),
    (1, 0, LeafRule::Features(CpuidLeaf::new(0, 0, ALL, ALL)), "features of CPUID 1"),
    (7, 0, LeafRule::Features(CpuidLeaf::new(0, ALL, ALL, ALL)), "features of CPUID 7"),
    (0xd, 0, LeafRule::Features(CpuidLeaf::new(ALL, 0, 0, ALL)), "extended states"),
    (0xd, 1, LeafRule::Features(CpuidLeaf::new(ALL, 0, 0, 0)), "instructions for extended states"),
    (0xd, 2, LeafRule::Same(CpuidLeaf::new(ALL, ALL, 0, 0)), "the place of the AVX state"),
    (0x8000_0001, 0, LeafRule::Features(CpuidLeaf::new(0, 0, ALL, ALL)), "extended features"),
    (0x8000_0007, 0, LeafRule::Features(CpuidLeaf::new(0, 0, 0, ALL)), "an invariant TSC"),
    (0x8000_0008, 0, LeafRule::Addresses, "the width of addresses"),
];

const _: () = assert!(RULES.len() * 16 < PROMISE_LEN);

/// What a guest was promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Promise {
    backend: Backend,
    /// Answers to the leaves of [`RULES`].
    leaves: [CpuidLeaf; RULES.len()],
}

/// What this machine lacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PromiseError {
    /// The partition was suspended on the first, this machine has the second.
    Backend(Backend, Backend),
    /// The named property of CPUID: leaf, subleaf, and the bits that lack, or differ.
    Cpuid(&'static str, u32, u32, CpuidLeaf),
    /// The frequencies of the TSC in Hz, then and now.
    Frequency(u64, u64),
}

impl fmt::Display for PromiseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend(then, now) => {
                write!(f, "it was suspended on {}, this machine has {}", then.name(), now.name())
            }
            Self::Cpuid(what, leaf, subleaf, CpuidLeaf { eax, ebx, ecx, edx }) => write!(
                f,
                "the CPU lacks {what} that the guest was shown (CPUID {leaf:#x}.{subleaf}: eax \
                 {eax:#x} ebx {ebx:#x} ecx {ecx:#x} edx {edx:#x})"
            ),
            Self::Frequency(then, now) => write!(
                f,
                "its TSC ran at {then} Hz, this machine's runs at {now} Hz, and the guest does not \
                 use KVM's clock"
            ),
        }
    }
}

impl Promise {
    /// Returns what guests are promised on a machine.
    pub(super) fn of(
        backend: Backend,
        host: &dyn Fn(u32, u32) -> CpuidLeaf,
        rate: TscRate,
    ) -> Self {
        let view = GuestView { cr4: 0, xcr0: GUEST_XCR0, apic: ApicMode::XApic, rate };
        let leaves = RULES.map(|(leaf, subleaf, ..)| cpuid::answer(leaf, subleaf, host, &view));
        Self { backend, leaves }
    }

    /// Encodes the promise for a message.
    pub(super) fn to_bytes(self) -> [u8; PROMISE_LEN] {
        let mut bytes = [0; PROMISE_LEN];
        let words = self.leaves.iter().flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]);
        let all = words.flat_map(u32::to_le_bytes);
        bytes.iter_mut().zip([number(self.backend)].into_iter().chain(all)).for_each(
            |(to, from)| {
                *to = from;
            },
        );
        bytes
    }

    /// Reads a promise from a message; `None` if it is none.
    pub(super) fn of_bytes(bytes: &[u8; PROMISE_LEN]) -> Option<Self> {
        let (first, rest) = bytes.split_first()?;
        let backend = [Backend::Vmx, Backend::Svm].into_iter().find(|b| number(*b) == *first)?;
        let (words, _) = rest.as_chunks::<4>();
        let (leaves, _) = words.as_chunks::<4>();
        let leaf = |n: usize| {
            let [eax, ebx, ecx, edx] = leaves.get(n).copied().unwrap_or_default();
            let word = u32::from_le_bytes;
            CpuidLeaf::new(word(eax), word(ebx), word(ecx), word(edx))
        };
        Some(Self { backend, leaves: core::array::from_fn(leaf) })
    }

    /// Appends the parts of the note.
    pub(super) fn save(&self, note: &mut StateWriter) {
        note.part(StatePart::Backend, VERSION, |part| part.u8(number(self.backend)));
        note.part(StatePart::Cpuid, VERSION, |part| {
            for ((leaf, subleaf, ..), answer) in RULES.iter().zip(self.leaves) {
                let CpuidLeaf { eax, ebx, ecx, edx } = answer;
                [*leaf, *subleaf, eax, ebx, ecx, edx].into_iter().for_each(|word| part.u32(word));
            }
        });
    }

    /// Reads the parts.
    ///
    /// # Errors
    /// [`StateError`].
    pub(super) fn read(note: &StateNote<'_>) -> Result<Self, StateError> {
        let backend = note.part(StatePart::Backend, VERSION, |part| {
            let wanted = part.u8()?;
            let known = [Backend::Vmx, Backend::Svm].into_iter().find(|b| number(*b) == wanted);
            known.ok_or(part.impossible())
        })?;
        let leaves = note.part(StatePart::Cpuid, VERSION, |part| {
            let mut leaves = [CpuidLeaf::default(); RULES.len()];
            for ((leaf, subleaf, ..), answer) in RULES.iter().zip(&mut leaves) {
                part.check((part.clone().u32()?, *subleaf) == (*leaf, *subleaf))?;
                part.u32()?;
                part.check(part.clone().u32()? == *subleaf)?;
                part.u32()?;
                *answer = CpuidLeaf::new(part.u32()?, part.u32()?, part.u32()?, part.u32()?);
            }
            Ok(leaves)
        })?;
        Ok(Self { backend, leaves })
    }

    /// Checks that `host` keeps the promise. `clock` is that of a guest which keeps time by its
    /// counter alone.
    ///
    /// # Errors
    /// [`PromiseError`] names the first thing that lacks.
    pub(super) fn check(
        &self,
        host: &ResumeHost<'_>,
        clock: Option<SavedClock>,
    ) -> Result<(), PromiseError> {
        if self.backend != host.backend {
            return Err(PromiseError::Backend(self.backend, host.backend));
        }
        let here = Self::of(host.backend, host.cpuid, host.at.rate);
        for (n, (leaf, subleaf, rule, what)) in RULES.into_iter().enumerate() {
            let lacks = rule.lacks(self.leaves[n], here.leaves[n]);
            if lacks != CpuidLeaf::default() {
                return Err(PromiseError::Cpuid(what, leaf, subleaf, lacks));
            }
        }
        match clock.map(|clock| clock.rate.hz()) {
            Some(then) if !is_near(then, host.at.rate.hz()) => {
                Err(PromiseError::Frequency(then, host.at.rate.hz()))
            }
            _ => Ok(()),
        }
    }
}

impl LeafRule {
    /// Returns the bits that lack, or differ.
    fn lacks(self, then: CpuidLeaf, now: CpuidLeaf) -> CpuidLeaf {
        let each = |mask: CpuidLeaf, lack: fn(u32, u32) -> u32| CpuidLeaf {
            eax: lack(then.eax, now.eax) & mask.eax,
            ebx: lack(then.ebx, now.ebx) & mask.ebx,
            ecx: lack(then.ecx, now.ecx) & mask.ecx,
            edx: lack(then.edx, now.edx) & mask.edx,
        };
        match self {
            // A state that the guest was not promised has no place to keep.
            Self::Same(_) if then == CpuidLeaf::default() => then,
            Self::Same(mask) => each(mask, |then, now| then ^ now),
            Self::Features(mask) => each(mask, |then, now| then & !now),
            Self::Addresses => {
                let is_narrow = now.eax & 0xff < then.eax & 0xff;
                let differs = (then.eax ^ now.eax) & 0xff00;
                CpuidLeaf {
                    eax: differs | if is_narrow { then.eax & 0xff } else { 0 },
                    ..CpuidLeaf::default()
                }
            }
        }
    }
}

/// Returns the back end's number in the note.
const fn number(backend: Backend) -> u8 {
    match backend {
        Backend::Vmx => 1,
        Backend::Svm => 2,
    }
}

fn is_near(then: u64, now: u64) -> bool {
    u128::from(then.abs_diff(now)) * 1_000_000 <= u128::from(then) * MOST_PPM
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::GuestDevices;
    use crate::dump::state_note::StateNoteKind;
    use crate::partition::devices::state::ResumeMoment;
    use crate::time::{Ns, Ticks};

    const RATE: TscRate = TscRate::new(2_000_000_000);

    fn full(leaf: u32, subleaf: u32) -> CpuidLeaf {
        match (leaf, subleaf) {
            (0, 0) => CpuidLeaf::new(0xd, 1, 2, 3),
            (0xd, 0) => CpuidLeaf::new(7, 832, 832, 0),
            (0xd, 2) => CpuidLeaf::new(256, 576, 0, 0),
            (0x8000_0008, 0) => CpuidLeaf::new(0x3028, 0, 0, 0),
            _ => CpuidLeaf::new(ALL, ALL, ALL, ALL),
        }
    }

    fn at(
        cpuid: &dyn Fn(u32, u32) -> CpuidLeaf,
        backend: Backend,
        rate: TscRate,
    ) -> ResumeHost<'_> {
        let at = ResumeMoment { now: Ticks::ZERO, rate, unix_ns: 0 };
        ResumeHost { backend, cpuid, xcr0: 7, devices: GuestDevices::default(), at }
    }

    fn read_back(promise: Promise) -> Promise {
        let mut writer = StateWriter::default();
        writer.note(StateNoteKind::Promised, 0, |note| promise.save(note));
        let notes = writer.finish().unwrap();
        let descriptor = StateNote::all(&notes, StateNoteKind::Promised).next().unwrap();
        Promise::read(&StateNote::read(descriptor).unwrap()).unwrap()
    }

    #[test]
    fn the_same_machine_keeps_the_promise() {
        for backend in [Backend::Vmx, Backend::Svm] {
            let promise = read_back(Promise::of(backend, &full, RATE));
            assert_eq!(promise, Promise::of(backend, &full, RATE));
            assert_eq!(promise.check(&at(&full, backend, RATE), None), Ok(()));
        }
    }

    #[test]
    fn the_other_back_end_is_refused_by_name() {
        for (then, now) in [(Backend::Svm, Backend::Vmx), (Backend::Vmx, Backend::Svm)] {
            let refused = Promise::of(then, &full, RATE).check(&at(&full, now, RATE), None);
            let error = refused.unwrap_err();
            assert_eq!(error, PromiseError::Backend(then, now));
            let text = error.to_string();
            assert!(text.contains(then.name()) && text.contains(now.name()), "{text}");
        }
    }

    #[test]
    fn a_feature_that_lacks_is_named_and_one_more_does_no_harm() {
        for (leaf, subleaf, rule, _) in RULES {
            let fewer = |asked: u32, sub: u32| {
                let mut answer = full(asked, sub);
                if (asked, sub) == (leaf, subleaf) {
                    match rule {
                        LeafRule::Addresses => answer.eax = 0x3027,
                        LeafRule::Same(_) => answer.ebx ^= 1,
                        LeafRule::Features(_) => answer = CpuidLeaf::default(),
                    }
                }
                answer
            };
            let (rich, poor) =
                (Promise::of(Backend::Svm, &full, RATE), Promise::of(Backend::Svm, &fewer, RATE));
            let refused = rich.check(&at(&fewer, Backend::Svm, RATE), None);
            let Err(PromiseError::Cpuid(_, found, ..)) = refused else {
                panic!("{leaf:#x}.{subleaf}: {refused:?}")
            };
            // Leaf 0xd.0 tells which of the others there are.
            assert!(found == leaf, "{found:#x} {leaf:#x}");
            let accepted = poor.check(&at(&full, Backend::Svm, RATE), None);
            assert_eq!(accepted.is_ok(), !matches!(rule, LeafRule::Same(_)), "{leaf:#x}.{subleaf}");
        }
    }

    #[test]
    fn another_frequency_is_refused_only_for_a_guest_that_counts_ticks() {
        let promise = Promise::of(Backend::Svm, &full, RATE);
        let clock = SavedClock { rate: RATE, uptime: Ns::ZERO };
        for (hz, fits) in [
            (2_000_000_000, true),
            (2_000_400_000, true),
            (1_999_600_000, true),
            (2_000_400_001, false),
            (1_999_599_999, false),
        ] {
            let host = at(&full, Backend::Svm, TscRate::new(hz));
            assert_eq!(promise.check(&host, Some(clock)).is_ok(), fits, "{hz}");
            assert_eq!(promise.check(&host, None), Ok(()));
        }
    }
}
