//! Features that every CPU must have, apart from those of the back ends.

use super::instr;

/// A required feature: its CPUID bit and its name.
struct Needed {
    name: &'static str,
    ecx_bit: u32,
}

/// All in leaf 1, ECX.
const NEEDED: [Needed; 2] = [
    Needed { name: "SSE4.2 (the CRC32 instruction)", ecx_bit: 20 },
    Needed { name: "XSAVE", ecx_bit: 26 },
];

/// Returns the name of the first feature that this CPU lacks.
pub fn missing() -> Option<&'static str> {
    first_missing(instr::cpuid(1, 0).ecx)
}

fn first_missing(ecx: u32) -> Option<&'static str> {
    NEEDED.iter().find(|needed| ecx & 1 << needed.ecx_bit == 0).map(|needed| needed.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(first_missing(u32::MAX), None);
        assert_eq!(first_missing(1 << 20), Some("XSAVE"));
        assert!(first_missing(0).is_some_and(|name| name.contains("CRC32")));
    }
}
