//! The second-level leaf: one word, which the hardware reads too, tells where a page is.
//!
//! ```text
//!  present   63........57 56..53  52        51.........12  11..10  9..0
//!                 0         0     HAS_BLOCK   frame          0     A, D, attributes: see Format
//!
//!  absent    63  62....52  51....39  38..35  34...........3  2..0
//!             1      0       all 1     tag       payload       0
//!
//!  shared    63........54  53        52  51.........12  11..10  9..0
//!                 0        SHARED     0   the base's     0     A, attributes: read, execute
//!
//!  zeros     63  62....52  51....35  34......12  11...0
//!             1      0         0     the frame   A, attributes: read only
//! ```
//!
//! In an absent leaf the three lowest bits are clear; then both formats ignore the rest (SDM 3C
//! "EPT Translation Mechanism", APM 2 "Nested Paging"). To the hypervisor the sign means *absent*.
//! With the guard bits 39 to 51, the address in an absent leaf is outside all memory: a CPU that
//! speculates past the missing present bit (L1 terminal fault) loads nothing. An entry that was
//! never filled, at every level, is the guard pattern with tag 0: *untouched*.
//!
//! The formats are values of [`TableFormat`], not types: they differ in a few constants.
//!
//! # The shared frame of zeros
//!
//! An untouched page that the guest has read shows it one frame of zeros, which all such pages
//! share, read-only. To the CPU this leaf is present. To the hypervisor it is absent and
//! *untouched*: it has the sign, its tag is 0, and no frame of the pool is in it. A write or an
//! instruction fetch faults. EPT ignores the sign unless #VE is in use (SDM 3C "Format of an EPT
//! Page-Table Entry that Maps a 4-KByte Page"); in NPT it is NX.
//!
//! # A frame of the base
//!
//! A child's page that was read shows the base's frame ([`super::base`]), for all but writes. The
//! frame's owner is the base's page, so no transition of this page can claim or free it.
//!
//! # Without A and D bits
//!
//! If the CPU does not keep A and D ([`TableFormat::EPT_WITHOUT_AD`]), a leaf permits only the
//! accesses that are noted in it already. Every other access faults, and is noted then
//! ([`Page::admit`](super::page::Page::admit)):
//!
//! ```text
//!   A D   read, execute   write     next fault
//!   0 -        no           no      access: sets A
//!   1 0        yes          no      write: sets D
//!   1 1        yes          yes     none
//! ```
//!
//! So *present* means resident here, whatever the leaf permits. A CPU's stale translation permits
//! at most the accesses that the leaf permitted when it was loaded. The same holds for a CPU with A
//! and D bits, so one rule for the flush serves both. A leaf without permissions holds the address
//! of the guest's own frame: speculation past it shows the guest nothing new.
//!
//! Neighbours: [`super::table`] finds the word, [`super::page`] knows which change is allowed.

use super::crc::Crc32c;
use crate::addr::{Hfn, PAGE_SHIFT};

/// Index of a page-in in the pager's table of transfers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransferIndex(pub u32);

/// The content of a present leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageMapping {
    /// The frame.
    pub hfn: Hfn,
    /// The A bit.
    pub accessed: bool,
    /// The D bit.
    pub dirty: bool,
    /// Block and checksum are current while `dirty` is clear.
    pub has_block: bool,
}

/// The state of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeafState {
    /// Reads as zeros, has no frame: never touched, or only read, through the shared frame of
    /// zeros.
    Untouched,
    /// Known to be zero, has no frame.
    Zero,
    /// Resident.
    Present(PageMapping),
    /// Shows this frame of the base, read-only.
    Shared(Hfn),
    /// Being written to its block; the frame is still owned.
    GoingOut(Hfn),
    /// Only in its block.
    Paged(Crc32c),
    /// Being read from its block.
    ComingIn(TransferIndex),
}

/// The bits in which the table formats differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableFormat {
    /// Bits of every present 4 KiB leaf, besides address, A, D and *has block*.
    pub leaf: u64,
    /// Bits of an entry that points to a table.
    pub table: u64,
    /// The A bit. A format without one uses the permissions instead: all are cleared with A, and A
    /// counts as set if any is set.
    pub accessed: u64,
    /// The D bit.
    pub dirty: u64,
    /// Without A and D bits, the write permission: set while A and D are both set. Else 0.
    pub write: u64,
    /// Bits, besides the address, of a leaf that permits reads alone; A is among them.
    pub read_only: u64,
}

/// Read, write, execute of EPT; present, write, user of NPT.
const ACCESS_BITS: u64 = 0b111;
const EPT_READ: u64 = 0b001;
const NPT_PRESENT_USER: u64 = 0b101;
const ADDRESS: u64 = ((1 << 52) - 1) & !((1 << PAGE_SHIFT) - 1);
/// Software bit of a present leaf: block and checksum are current while D is clear.
pub(super) const HAS_BLOCK: u64 = 1 << 52;
/// Software bit of a leaf that shows the base's frame.
const SHARED: u64 = 1 << 53;
/// The write permission, in both formats.
const WRITE: u64 = 1 << 1;
const SIGN: u64 = 1 << 63;
/// Bits of every absent leaf: the sign, which no present leaf has, and the guard.
const GUARD: u64 = SIGN | ((1 << 52) - 1) & !((1 << 39) - 1);
const PAYLOAD_SHIFT: u32 = 3;
const TAG_SHIFT: u32 = 35;

mod tag {
    pub(super) const UNTOUCHED: u64 = 0;
    pub(super) const ZERO: u64 = 1;
    pub(super) const GOING_OUT: u64 = 2;
    pub(super) const PAGED: u64 = 3;
    pub(super) const COMING_IN: u64 = 4;
    /// In no leaf: the state number of a present leaf.
    pub(super) const PRESENT: u64 = 5;
}

/// Content of every entry of a new table, at every level.
pub const EMPTY: u64 = GUARD;

impl TableFormat {
    /// Intel's extended page tables, with A and D bits enabled in the EPTP.
    ///
    /// Leaves are write-back and ignore the guest's PAT. Otherwise a guest could make its view of a
    /// frame uncached; then it would read stale bytes after a page-in, and could leave stale bytes
    /// for the hypervisor to read.
    pub const EPT: Self = Self {
        leaf: ACCESS_BITS | Self::EPT_WRITE_BACK,
        table: ACCESS_BITS,
        accessed: 1 << 8,
        dirty: 1 << 9,
        write: 0,
        read_only: EPT_READ | Self::EPT_WRITE_BACK | 1 << 8,
    };
    /// The same for a CPU without A and D bits, or with these disabled in the EPTP: it ignores bits
    /// 8 and 9.
    pub const EPT_WITHOUT_AD: Self = Self {
        leaf: Self::EPT_WRITE_BACK,
        accessed: ACCESS_BITS,
        write: 1 << 1,
        read_only: EPT_READ | Self::EPT_WRITE_BACK,
        ..Self::EPT
    };
    /// AMD's nested page tables: ordinary long-mode entries, always walked as user accesses.
    pub const NPT: Self = Self {
        leaf: ACCESS_BITS,
        table: ACCESS_BITS,
        accessed: 1 << 5,
        dirty: 1 << 6,
        write: 0,
        read_only: NPT_PRESENT_USER | 1 << 5,
    };

    const EPT_WRITE_BACK: u64 = 6 << 3 | 1 << 6;

    /// Returns the word for `leaf`.
    ///
    /// # Panics
    /// If a frame number that goes out needs more than 32 bits (our bug: the frame table takes no
    /// such frame).
    #[inline(always)]
    pub const fn encode(&self, leaf: LeafState) -> u64 {
        match leaf {
            LeafState::Untouched => absent(tag::UNTOUCHED, 0),
            LeafState::Zero => absent(tag::ZERO, 0),
            LeafState::Present(mapping) => self.encode_mapping(mapping),
            LeafState::Shared(hfn) => self.encode_shared(hfn),
            LeafState::GoingOut(hfn) => {
                assert!(hfn.as_u64() <= u32::MAX as u64, "pool frames have 32-bit numbers");
                absent(tag::GOING_OUT, hfn.as_u64() as u32)
            }
            LeafState::Paged(crc) => absent(tag::PAGED, crc.0),
            LeafState::ComingIn(transfer) => absent(tag::COMING_IN, transfer.0),
        }
    }

    /// Returns the leaf that `word` encodes.
    ///
    /// # Panics
    /// On a tag that [`TableFormat::encode`] never makes (our bug: no other code writes leaves).
    #[inline(always)]
    pub const fn decode(&self, word: u64) -> LeafState {
        if is_resident(word) {
            if word & SHARED != 0 {
                return LeafState::Shared(frame_of(word));
            }
            return LeafState::Present(self.decode_mapping(word));
        }
        let payload = (word >> PAYLOAD_SHIFT) as u32;
        match (word & !GUARD) >> TAG_SHIFT {
            tag::UNTOUCHED => LeafState::Untouched,
            tag::ZERO => LeafState::Zero,
            tag::GOING_OUT => LeafState::GoingOut(Hfn::new(payload as u64)),
            tag::PAGED => LeafState::Paged(Crc32c(payload)),
            tag::COMING_IN => LeafState::ComingIn(TransferIndex(payload)),
            _ => panic!("an absent leaf has one of five tags"),
        }
    }

    /// Returns the word of an untouched page that shows the guest `zeros`, the shared frame.
    ///
    /// # Panics
    /// If the address would reach into the tag (our bug: the frame is in the kernel's image).
    pub const fn showing_zeros(&self, zeros: Hfn) -> u64 {
        let base = zeros.base().as_u64();
        assert!(base < 1 << TAG_SHIFT, "the frame of zeros lies below 32 GiB");
        SIGN | base | self.read_only
    }

    /// Returns the entry that points to a table.
    pub const fn table_entry(&self, table: Hfn) -> u64 {
        table.base().as_u64() | self.table
    }

    /// Out of line, so that the encoding of all other leaves stays small enough to be inlined.
    #[cold]
    #[inline(never)]
    const fn encode_shared(&self, hfn: Hfn) -> u64 {
        let write = if cfg!(feature = "without-private") { WRITE } else { 0 };
        hfn.base().as_u64() | SHARED | ((self.leaf | self.accessed) & !WRITE) | write
    }

    #[inline]
    const fn encode_mapping(&self, mapping: PageMapping) -> u64 {
        let mut word = mapping.hfn.base().as_u64() | self.leaf;
        if mapping.accessed {
            word = self.with_accessed(word);
        }
        if mapping.dirty {
            word = self.with_dirty(word);
        }
        if mapping.has_block {
            word |= HAS_BLOCK;
        }
        word
    }

    /// Sets A in a present leaf.
    #[inline]
    pub(super) const fn with_accessed(&self, word: u64) -> u64 {
        let word = word | (self.accessed & !self.write);
        if word & self.dirty != 0 { word | self.write } else { word }
    }

    /// Sets D in a present leaf.
    #[inline]
    pub(super) const fn with_dirty(&self, word: u64) -> u64 {
        let word = word | self.dirty;
        if word & self.accessed != 0 { word | self.write } else { word }
    }

    /// Clears D in a present leaf when the cleaning of its page begins, and *has block* until the
    /// new block is written. If the hypervisor alone keeps D, clears A too: see
    /// [`TableFormat::is_touched`].
    #[inline]
    pub(super) const fn cleaned(&self, word: u64) -> u64 {
        word & !(self.touched() | HAS_BLOCK)
    }

    /// Returns whether a page may have been written since it began to be
    /// [`cleaned`](TableFormat::cleaned).
    ///
    /// D tells this. If the hypervisor keeps D, A counts too: an emulator of such a CPU may set
    /// bits in the guest's own page tables with the permission to read, without asking for the one
    /// to write (Bochs does).
    #[inline]
    pub(super) const fn is_touched(&self, word: u64) -> bool {
        word & self.touched() != 0
    }

    const fn touched(&self) -> u64 {
        if self.write == 0 { self.dirty } else { self.dirty | self.accessed }
    }

    /// Returns whether the CPU sets A and D itself.
    #[inline]
    pub const fn is_kept_by_cpu(&self) -> bool {
        self.write == 0
    }

    #[inline]
    pub(super) const fn decode_mapping(&self, word: u64) -> PageMapping {
        PageMapping {
            hfn: frame_of(word),
            accessed: word & self.accessed != 0,
            dirty: word & self.dirty != 0,
            has_block: word & HAS_BLOCK != 0,
        }
    }
}

/// Returns whether an entry above the leaves points to a table.
#[inline]
pub const fn is_table(word: u64) -> bool {
    word & ACCESS_BITS != 0
}

/// Returns whether a leaf has a frame, whatever it permits.
#[inline]
pub const fn is_resident(word: u64) -> bool {
    (word as i64) >= 0
}

/// Returns whether a leaf shows a frame of the base.
#[inline]
pub const fn is_shared(word: u64) -> bool {
    word & (SIGN | SHARED) == SHARED
}

/// Returns whether a page has neither a frame nor stored content.
#[inline]
pub(super) const fn reads_as_zeros(word: u64) -> bool {
    const STATES: u64 = 1 << tag::UNTOUCHED | 1 << tag::ZERO;
    STATES >> state_of(word) & 1 != 0
}

/// Returns whether a leaf shows the guest the shared frame of zeros.
#[inline]
pub const fn shows_zeros(word: u64) -> bool {
    !is_resident(word) && word & ACCESS_BITS != 0
}

/// Returns the frame or table that a present entry points to.
#[inline]
pub const fn frame_of(word: u64) -> Hfn {
    Hfn::new((word & ADDRESS) >> PAGE_SHIFT)
}

/// Returns the number of a leaf's state: its tag, or for a present leaf one more than the last tag.
#[inline]
pub(super) const fn state_of(word: u64) -> usize {
    let tag = if is_resident(word) { tag::PRESENT } else { word >> TAG_SHIFT };
    (tag & 7) as usize
}

#[inline]
const fn absent(tag: u64, payload: u32) -> u64 {
    GUARD | tag << TAG_SHIFT | (payload as u64) << PAYLOAD_SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [TableFormat; 3] =
        [TableFormat::EPT, TableFormat::EPT_WITHOUT_AD, TableFormat::NPT];
    const PAYLOADS: [u32; 8] =
        [0, 1, 2, 0x1234_5678, 0x7fff_ffff, 0x8000_0000, 0xaaaa_aaaa, u32::MAX];

    fn absent_leaves() -> impl Iterator<Item = LeafState> {
        let carrying = |n| {
            [
                LeafState::GoingOut(Hfn::new(u64::from(n))),
                LeafState::Paged(Crc32c(n)),
                LeafState::ComingIn(TransferIndex(n)),
            ]
        };
        let singles = (0..32).map(|bit| 1 << bit);
        [LeafState::Untouched, LeafState::Zero]
            .into_iter()
            .chain(PAYLOADS.into_iter().chain(singles).flat_map(carrying))
    }

    fn present_leaves() -> impl Iterator<Item = LeafState> {
        let flags = (0..8).map(|n| (n & 1 != 0, n & 2 != 0, n & 4 != 0));
        flags.flat_map(|(accessed, dirty, has_block)| {
            let frames = (0..40).map(|bit| 1 << bit).chain([0, (1 << 40) - 1]).map(Hfn::new);
            frames.flat_map(move |hfn| {
                let own = LeafState::Present(PageMapping { hfn, accessed, dirty, has_block });
                [own, LeafState::Shared(hfn)]
            })
        })
    }

    #[test]
    fn every_leaf_survives_the_round_trip_in_every_format() {
        for format in FORMATS {
            for leaf in absent_leaves().chain(present_leaves()) {
                assert_eq!(format.decode(format.encode(leaf)), leaf, "{format:x?}");
            }
        }
    }

    /// The quick tests of a word, which look at single bits, agree with its decoding.
    #[test]
    fn a_words_tests_agree_with_its_decoding() {
        for format in FORMATS {
            for leaf in absent_leaves().chain(present_leaves()) {
                let word = format.encode(leaf);
                let resident = matches!(leaf, LeafState::Present(_) | LeafState::Shared(_));
                let zeros = matches!(leaf, LeafState::Untouched | LeafState::Zero);
                let state = match leaf {
                    LeafState::Untouched => 0,
                    LeafState::Zero => 1,
                    LeafState::GoingOut(_) => 2,
                    LeafState::Paged(_) => 3,
                    LeafState::ComingIn(_) => 4,
                    LeafState::Present(_) | LeafState::Shared(_) => 5,
                };
                assert_eq!(
                    (is_resident(word), reads_as_zeros(word)),
                    (resident, zeros),
                    "{leaf:?}"
                );
                assert_eq!(state_of(word), state, "{leaf:?}");
            }
        }
    }

    #[test]
    fn an_entry_points_to_its_table_in_every_format() {
        for format in FORMATS {
            for table in (0..40).map(|bit| Hfn::new(1 << bit)).chain([Hfn::new((1 << 40) - 1)]) {
                let entry = format.table_entry(table);
                assert!(is_table(entry) && is_resident(entry));
                assert_eq!(frame_of(entry), table);
            }
        }
    }

    #[test]
    fn no_two_leaves_share_a_word() {
        for format in FORMATS {
            let mut encoded: Vec<(u64, LeafState)> = absent_leaves()
                .chain(present_leaves())
                .map(|leaf| (format.encode(leaf), leaf))
                .collect();
            encoded.sort_unstable_by_key(|(word, _)| *word);
            for pair in encoded.windows(2) {
                let [(word, leaf), (next, other)] = pair else { continue };
                assert!(word != next || leaf == other, "{leaf:?} and {other:?}");
            }
        }
    }

    #[test]
    fn an_absent_leaf_is_absent_in_every_format_and_points_at_no_memory() {
        for leaf in absent_leaves() {
            let word = TableFormat::EPT.encode(leaf);
            assert!(
                FORMATS.iter().all(|format| format.encode(leaf) == word),
                "absent leaves are the same in all formats"
            );
            assert!(!is_resident(word) && word & ACCESS_BITS == 0, "{leaf:?}");
            assert_eq!(word & GUARD, GUARD, "{leaf:?}");
            assert_eq!(
                word >> 52,
                1 << 11,
                "{leaf:?}: bit 63 may suppress #VE, the others are ours in present leaves only"
            );
            assert!(frame_of(word).as_u64() >= 0x1fff << 27, "{leaf:?}");
        }
    }

    #[test]
    fn a_present_leaf_is_present_and_its_attributes_are_the_manuals() {
        let mapping =
            PageMapping { hfn: Hfn::new(0x1234), accessed: false, dirty: false, has_block: false };
        assert_eq!(
            TableFormat::EPT.encode(LeafState::Present(mapping)),
            0x123_4077,
            "RWX, write-back, ignore PAT"
        );
        assert_eq!(TableFormat::NPT.encode(LeafState::Present(mapping)), 0x123_4007, "P, RW, US");
        let touched = PageMapping { accessed: true, dirty: true, has_block: true, ..mapping };
        assert_eq!(TableFormat::EPT.encode(LeafState::Present(touched)), 1 << 52 | 0x123_4377);
        assert_eq!(TableFormat::NPT.encode(LeafState::Present(touched)), 1 << 52 | 0x123_4067);
    }

    /// Read, write, execute; write without read would be a misconfiguration (SDM 3C "EPT
    /// Misconfigurations").
    #[test]
    fn without_a_and_d_bits_a_leaf_permits_what_is_noted_in_it() {
        let (none, read_execute, all) = (0b000, 0b101, 0b111);
        for (accessed, dirty, permitted) in [
            (false, false, none),
            (false, true, none),
            (true, false, read_execute),
            (true, true, all),
        ] {
            let mapping = PageMapping { hfn: Hfn::new(0x1234), accessed, dirty, has_block: false };
            let word = TableFormat::EPT_WITHOUT_AD.encode(LeafState::Present(mapping));
            let attributes = 0x123_4070 | if dirty { 1 << 9 } else { 0 };
            assert_eq!(word, attributes | permitted, "{mapping:?}");
        }
    }

    /// The permissions follow every change of A and D. In the other formats only A and D change.
    #[test]
    fn a_changed_leaf_is_the_word_of_its_mapping() {
        for format in FORMATS {
            for leaf in present_leaves() {
                let LeafState::Present(mapping) = leaf else { continue };
                let word = format.encode(leaf);
                let is = |word, mapping| {
                    assert_eq!(
                        word,
                        format.encode(LeafState::Present(mapping)),
                        "{format:x?} {mapping:?}"
                    )
                };
                is(format.with_accessed(word), PageMapping { accessed: true, ..mapping });
                is(format.with_dirty(word), PageMapping { dirty: true, ..mapping });
                is(word & !format.accessed, PageMapping { accessed: false, ..mapping });
                let accessed = mapping.accessed && format.is_kept_by_cpu();
                is(
                    format.cleaned(word),
                    PageMapping { dirty: false, has_block: false, accessed, ..mapping },
                );
                assert!(!format.is_touched(format.cleaned(word)), "{format:x?} {mapping:?}");
                assert!(
                    format.is_touched(format.with_dirty(format.cleaned(word))),
                    "{format:x?} {mapping:?}"
                );
            }
        }
    }

    /// SDM 3C "Format of an EPT Page-Table Entry that Maps a 4-KByte Page"; APM 2 "4-Kbyte Page
    /// Translation".
    #[test]
    fn a_leaf_of_the_shared_zeros_permits_reading_alone_and_is_untouched() {
        let zeros = Hfn::new(0x1234);
        for (format, word) in [
            (TableFormat::EPT, 1 << 63 | 0x123_4171),
            (TableFormat::EPT_WITHOUT_AD, 1 << 63 | 0x123_4071),
            (TableFormat::NPT, 1 << 63 | 0x123_4025),
        ] {
            let shown = format.showing_zeros(zeros);
            assert_eq!(shown, word, "{format:x?}");
            assert_eq!(
                (format.decode(shown), state_of(shown)),
                (LeafState::Untouched, state_of(EMPTY))
            );
            assert!(shows_zeros(shown) && !is_resident(shown) && frame_of(shown) == zeros);
            for leaf in absent_leaves().chain(present_leaves()) {
                assert!(!shows_zeros(format.encode(leaf)), "{leaf:?}");
            }
        }
    }

    #[test]
    fn the_shared_zeros_may_lie_below_32_gib() {
        let last = TableFormat::NPT.showing_zeros(Hfn::new((1 << 23) - 1));
        assert_eq!(
            (TableFormat::NPT.decode(last), state_of(last)),
            (LeafState::Untouched, state_of(EMPTY))
        );
    }

    #[test]
    #[should_panic(expected = "below 32 GiB")]
    fn higher_up_they_would_look_like_another_state() {
        TableFormat::NPT.showing_zeros(Hfn::new(1 << 23));
    }

    #[test]
    fn a_new_table_is_untouched() {
        assert_eq!(TableFormat::EPT.decode(EMPTY), LeafState::Untouched);
        assert!(!is_resident(EMPTY) && !is_table(EMPTY));
    }

    #[test]
    #[should_panic(expected = "one of five tags")]
    fn an_unknown_tag_is_our_bug() {
        TableFormat::NPT.decode(absent(6, 0));
    }
}
