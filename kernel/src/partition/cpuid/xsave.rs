//! Leaf 0xd: the XSAVE area, consistent with the states a guest may switch on.
//!
//! Sizes are computed from the components' own subleaves and the guest's XCR0. The host's EBX
//! cannot be copied: it depends on the XCR0 loaded at that moment.

use super::CpuidLeaf;

/// The state components a guest may use: x87, SSE, AVX.
pub const GUEST_XCR0: u64 = 0b111;

/// Legacy region and XSAVE header.
const HEADER_END: u32 = 576;
/// Subleaf 1 EAX: XSAVEOPT, XSAVEC, XGETBV with ECX = 1.
const INSTRUCTIONS: u32 = 0b111;
/// Bits of a component's ECX: managed by XSS; aligned to 64 in the compacted form.
const SUPERVISOR: u32 = 1 << 0;
const ALIGNED: u32 = 1 << 1;

/// Tells whether XSETBV may set XCR0 to `value` on a host that offers `host_states`. SDM 1
/// "Enabling the XSAVE Feature Set".
pub const fn xcr0_allowed(value: u64, host_states: u64) -> bool {
    let (x87, sse, avx) = (value & 1 != 0, value & 2 != 0, value & 4 != 0);
    value & !(GUEST_XCR0 & host_states) == 0 && x87 && (sse || !avx)
}

pub(super) fn answer(subleaf: u32, host: &dyn Fn(u32, u32) -> CpuidLeaf, xcr0: u64) -> CpuidLeaf {
    let states = host(0xd, 0).eax & GUEST_XCR0 as u32;
    match subleaf {
        0 if states == 0 => CpuidLeaf::default(),
        0 => {
            CpuidLeaf::new(states, standard_size(host, xcr0), standard_size(host, states.into()), 0)
        }
        1 => CpuidLeaf::new(host(0xd, 1).eax & INSTRUCTIONS, compacted_size(host, xcr0), 0, 0),
        n if n < 32 && states & (1 << n) != 0 && host(0xd, n).ecx & SUPERVISOR == 0 => host(0xd, n),
        _ => CpuidLeaf::default(),
    }
}

fn components(states: u64) -> impl Iterator<Item = u32> {
    (2..32).filter(move |n| states & (1 << n) != 0)
}

fn standard_size(host: &dyn Fn(u32, u32) -> CpuidLeaf, states: u64) -> u32 {
    let end = |n| {
        let component = host(0xd, n);
        component.ebx.saturating_add(component.eax)
    };
    components(states & GUEST_XCR0).map(end).fold(HEADER_END, u32::max)
}

fn compacted_size(host: &dyn Fn(u32, u32) -> CpuidLeaf, states: u64) -> u32 {
    components(states & GUEST_XCR0).fold(HEADER_END, |end, n| {
        let component = host(0xd, n);
        let start = if component.ecx & ALIGNED != 0 { end.next_multiple_of(64) } else { end };
        start.saturating_add(component.eax)
    })
}
