//! Addresses and frame numbers, each space its own type.
//!
//! | type | space | unit |
//! |---|---|---|
//! | [`Hpa`] / [`Hfn`] | host physical | byte / 4 KiB frame |
//! | [`Hva`] | host virtual (the hypervisor's own) | byte |
//! | [`Gpa`] / [`Gfn`] | guest physical | byte / 4 KiB page |
//! | [`Gva`] | guest linear | byte |
//!
//! Invariants: there is no conversion between spaces here. `mm` converts `Gpa -> Hfn` by the
//! second-level table, `arch` converts `Hpa -> Hva` by the direct map, and a guest table walk
//! converts `Gva -> Gpa`. Arithmetic that can overflow is checked, and its type says so.

/// Bytes in a page, frame or block.
pub const PAGE_SIZE: u64 = 4096;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Wraps a raw byte address.
            #[inline]
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }
            /// Returns the raw byte address.
            #[inline]
            pub const fn as_u64(self) -> u64 {
                self.0
            }
            /// Adds `bytes`; `None` if the sum exceeds 64 bits.
            #[inline]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }
            /// Returns the byte offset within the page.
            #[inline]
            pub const fn page_offset(self) -> u64 {
                self.0 & (PAGE_SIZE - 1)
            }
            /// Rounds down to the page's first byte.
            #[inline]
            pub const fn page_base(self) -> Self {
                Self(self.0 & !(PAGE_SIZE - 1))
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
    };
}

macro_rules! frame_number {
    ($(#[$doc:meta])* $name:ident of $address:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Wraps a raw number.
            #[inline]
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }
            /// Returns the raw number.
            #[inline]
            pub const fn as_u64(self) -> u64 {
                self.0
            }
            /// Returns the address of the first byte.
            ///
            /// # Panics
            /// If the number is beyond the 52 bits of a physical address (our bug: numbers are
            /// checked on entry).
            #[inline]
            pub const fn base(self) -> $address {
                assert!(self.0 < 1 << (52 - PAGE_SHIFT), "frame number beyond 52 address bits");
                $address::new(self.0 << PAGE_SHIFT)
            }
            /// Adds `count` pages; `None` on overflow.
            #[inline]
            pub const fn checked_add(self, count: u64) -> Option<Self> {
                match self.0.checked_add(count) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }
        }

        impl $address {
            /// Returns the number of the page that holds this byte.
            #[inline]
            pub const fn number(self) -> $name {
                $name::new(self.as_u64() >> PAGE_SHIFT)
            }
        }
    };
}

address!(
    /// Host physical address.
    Hpa
);
address!(
    /// Host virtual address: the hypervisor's own.
    Hva
);
address!(
    /// Guest physical address.
    Gpa
);
address!(
    /// Guest linear ("virtual") address.
    Gva
);
frame_number!(
    /// Host frame number.
    Hfn of Hpa
);
frame_number!(
    /// Guest page number.
    Gfn of Gpa
);

/// A page of a guest's RAM, counted without holes: the n-th RAM page, which has block `n` of the
/// paging space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct PageIndex(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_arithmetic_at_the_edges() {
        let a = Gpa::new(0x1fff);
        assert_eq!(
            (a.page_offset(), a.page_base(), a.number()),
            (0xfff, Gpa::new(0x1000), Gfn::new(1))
        );
        assert_eq!(Gpa::new(u64::MAX).checked_add(1), None);
        assert_eq!(Gfn::new(3).base(), Gpa::new(0x3000));
        assert_eq!(Hfn::new(u64::MAX).checked_add(1), None);
    }

    /// Every power of two, and the numbers beside it.
    fn edges() -> impl Iterator<Item = u64> {
        (0..64).map(|bit| 1_u64 << bit).flat_map(|n| [n - 1, n, n + 1]).chain([u64::MAX])
    }

    #[test]
    fn page_and_offset_make_up_the_address_everywhere() {
        for raw in edges() {
            let a = Hpa::new(raw);
            let (base, offset) = (a.page_base().as_u64(), a.page_offset());
            assert!(base.is_multiple_of(PAGE_SIZE) && offset < PAGE_SIZE, "{a:?}");
            assert_eq!((base + offset, base / PAGE_SIZE), (raw, a.number().as_u64()), "{a:?}");
        }
    }

    #[test]
    fn a_frame_holds_its_first_and_its_last_byte() {
        for raw in edges().filter(|&raw| raw < 1 << 40) {
            let frame = Hfn::new(raw);
            let first = frame.base();
            assert_eq!((first.page_offset(), first.number()), (0, frame));
            let last = first.checked_add(PAGE_SIZE - 1).unwrap();
            assert_eq!((last.page_base(), last.number()), (first, frame));
        }
    }

    #[test]
    fn a_sum_is_the_numbers_sum_or_none() {
        for a in edges() {
            for b in edges() {
                let sum = u64::try_from(u128::from(a) + u128::from(b)).ok();
                assert_eq!(Gpa::new(a).checked_add(b), sum.map(Gpa::new));
                assert_eq!(Gfn::new(a).checked_add(b), sum.map(Gfn::new));
            }
        }
    }

    #[test]
    #[should_panic(expected = "beyond 52 address bits")]
    fn a_frame_number_beyond_52_bits_is_our_bug() {
        let _ = Hfn::new(1 << 40).base();
    }
}
