//! The vendor of the CPU that the guest sees: the host's.

use super::CpuidLeaf;

/// CPU vendors whose registers differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vendor {
    /// AMD, and Hygon, which has the same registers.
    Amd,
    /// Intel, and all others.
    Intel,
}

impl Vendor {
    /// Returns the vendor that leaf 0 of `host` names.
    pub fn of(host: &dyn Fn(u32, u32) -> CpuidLeaf) -> Self {
        let leaf = host(0, 0);
        let name = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
        match name.as_flattened() {
            b"AuthenticAMD" | b"HygonGenuine" => Vendor::Amd,
            _ => Vendor::Intel,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_makers_are_told_by_their_names() {
        let named = |name: &'static [u8; 12]| {
            let (words, _) = name.as_chunks::<4>();
            let [ebx, edx, ecx] = [words[0], words[1], words[2]].map(u32::from_le_bytes);
            Vendor::of(&move |_, _| CpuidLeaf::new(0, ebx, ecx, edx))
        };
        assert_eq!(
            [named(b"AuthenticAMD"), named(b"HygonGenuine"), named(b"GenuineIntel")],
            [Vendor::Amd, Vendor::Amd, Vendor::Intel]
        );
    }
}
