//! Tags of cached translations: ASID on SVM, VPID on VMX.
//!
//! Each vCPU has its own tag while there are enough, because two vCPUs under one tag would use each
//! other's linear translations. The number of tags depends on the CPU (QEMU's TCG: 16). The last
//! tag is reserved for all vCPUs that find no other; a back end flushes at every
//! [`load`](super::Vcpu::load) of those.
//!
//! A released tag may be allocated again at once: the first run of a vCPU on a CPU after
//! [`set_memory`](super::Vcpu::set_memory) flushes its tag there.

/// The number that distinguishes this vCPU's translations in the TLB. Never 0, which is the host's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TlbTag {
    number: u16,
    sharing: TagSharing,
}

/// Whether other vCPUs have the same tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TagSharing {
    /// No other vCPU has it.
    Exclusive,
    /// Tags ran out: the back end flushes whenever the vCPU is loaded.
    Shared,
}

impl TlbTag {
    /// Returns the hardware's number.
    pub const fn number(self) -> u16 {
        self.number
    }
    /// Returns whether other vCPUs may have it too.
    pub const fn sharing(self) -> TagSharing {
        self.sharing
    }
}

/// Limit on managed tags: enough for every vCPU that fits a node, in 512 bytes.
const LIMIT: usize = 4096;

/// The tags of one node. The owner puts them behind its lock.
pub struct TlbTags {
    used: [u64; LIMIT / 64],
    /// The shared tag; the tags in `1..last` are exclusive.
    last: u16,
}

impl TlbTags {
    /// Manages the tags `1..count`; `count` is the hardware's number, including the host's 0.
    ///
    /// # Panics
    /// If the hardware has no tag except the host's: [`Backend::detect`](super::Backend::detect)
    /// refuses such a CPU.
    pub const fn new(count: u32) -> Self {
        assert!(count >= 2, "a back end offers one tag besides the host's");
        let count = if count > LIMIT as u32 { LIMIT as u32 } else { count };
        Self { used: [0; LIMIT / 64], last: count as u16 - 1 }
    }

    /// Allocates a tag: an exclusive one while there is one.
    pub fn allocate(&mut self) -> TlbTag {
        for number in 1..self.last {
            let (word, bit) = Self::position(number);
            if self.used[word] & bit == 0 {
                self.used[word] |= bit;
                return TlbTag { number, sharing: TagSharing::Exclusive };
            }
        }
        TlbTag { number: self.last, sharing: TagSharing::Shared }
    }

    /// Frees the tag of a vCPU that will not run again.
    pub fn release(&mut self, tag: TlbTag) {
        if tag.sharing == TagSharing::Exclusive {
            let (word, bit) = Self::position(tag.number);
            assert!(self.used[word] & bit != 0, "a tag is released once");
            self.used[word] &= !bit;
        }
    }

    /// Returns the number of exclusive tags in use.
    pub fn used(&self) -> u32 {
        self.used.iter().map(|word| word.count_ones()).sum()
    }

    const fn position(number: u16) -> (usize, u64) {
        (number as usize / 64, 1 << (number % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_distinct_until_they_run_out_and_then_shared() {
        let mut tags = TlbTags::new(4);
        let (a, b, c, d) = (tags.allocate(), tags.allocate(), tags.allocate(), tags.allocate());
        assert_eq!([a.number(), b.number(), c.number(), d.number()], [1, 2, 3, 3]);
        assert_eq!((b.sharing(), c.sharing()), (TagSharing::Exclusive, TagSharing::Shared));
        tags.release(c);
        tags.release(a);
        assert_eq!((tags.used(), tags.allocate(), tags.used()), (1, a, 2));
    }

    #[test]
    fn a_cpu_with_one_guest_tag_shares_it_from_the_start() {
        assert_eq!(TlbTags::new(2).allocate(), TlbTag { number: 1, sharing: TagSharing::Shared });
    }

    #[test]
    #[should_panic(expected = "released once")]
    fn releasing_a_tag_twice_is_our_bug() {
        let mut tags = TlbTags::new(16);
        let tag = tags.allocate();
        tags.release(tag);
        tags.release(tag);
    }
}
