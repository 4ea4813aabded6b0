//! Offers the guest the event that is due.
//!
//! ```text
//!   local APIC ──┬─ NMI ────────┬─ can be taken ──> injected
//!                │              └─ not now ───────> NMI window
//!                └─ interrupt ──┬─ can be taken ──> injected, acknowledged
//!                               └─ not now ───────> interrupt window
//! ```
//!
//! Called at the beginning of a stay, and between two runs of the short way (`exits::quick`) after
//! any change that may have made an event due. Pure.

use super::devices::Platform;
use crate::virt::{EventSink, InjectedEvent, WindowRequest};

/// Injects the event that is due, or requests an exit for when the guest can take one.
#[inline(always)]
pub fn offer_events(platform: &mut Platform, vcpu: &mut impl EventSink) {
    let lapic = platform.lapic_mut();
    lapic.forget_news();
    lapic.set_cr8(vcpu.cr8());
    if lapic.nmi_pending() {
        offer_nmi(platform, vcpu);
    }
    let window = match platform.interrupt() {
        Some(vector) if vcpu.can_take_interrupt() => {
            vcpu.inject(InjectedEvent::interrupt(vector));
            platform.acknowledge(vector);
            // It was the highest: no other one has a priority above it now.
            WindowRequest::None
        }
        // The window opens as soon as the guest can take the interrupt.
        Some(_) => WindowRequest::Open,
        None => WindowRequest::None,
    };
    vcpu.request_interrupt_window(window);
}

#[cold]
fn offer_nmi(platform: &mut Platform, vcpu: &mut impl EventSink) {
    let lapic = platform.lapic_mut();
    if vcpu.can_take_nmi() {
        lapic.take_nmi();
        vcpu.inject(InjectedEvent::nmi());
    }
    // A second NMI may be pending behind the injected one, or this one is still pending.
    vcpu.request_nmi_window(if lapic.nmi_pending() {
        WindowRequest::Open
    } else {
        WindowRequest::None
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::layout::RamLayout;
    use crate::partition::devices::clock::{GuestClock, TscRate};
    use crate::partition::devices::lapic::ApicMode;
    use crate::partition::devices::lapic::register::{END_OF_INTERRUPT, SELF_IPI, SPURIOUS};
    use crate::partition::fake::FakeVcpu;
    use crate::time::Ticks;

    fn platform(vectors: &[u64]) -> Platform {
        let clock = GuestClock {
            rate: TscRate::new(1_000_000_000),
            start: Ticks::ZERO,
            unix_ns_at_start: 0,
        };
        let mut platform =
            Platform::new(clock, &RamLayout::new(1 << 20).unwrap(), ApicMode::X2Apic);
        platform.x2apic_write(SPURIOUS, 0x1ff, Ticks::ZERO).unwrap();
        vectors
            .iter()
            .for_each(|&vector| platform.x2apic_write(SELF_IPI, vector, Ticks::ZERO).unwrap());
        platform
    }

    #[test]
    fn the_highest_interrupt_goes_in_and_the_next_waits_for_its_end() {
        let (mut platform, mut vcpu) = (platform(&[0x41, 0x52]), FakeVcpu::ready());
        offer_events(&mut platform, &mut vcpu);
        assert_eq!(
            (vcpu.queued.take(), vcpu.interrupt_window),
            (Some(InjectedEvent::interrupt(0x52)), WindowRequest::None)
        );
        assert!(!platform.lapic().has_news());
        offer_events(&mut platform, &mut vcpu);
        assert_eq!(vcpu.queued, None);
        platform.x2apic_write(END_OF_INTERRUPT, 0, Ticks::ZERO).unwrap();
        offer_events(&mut platform, &mut vcpu);
        assert_eq!(vcpu.queued, Some(InjectedEvent::interrupt(0x41)));
    }

    #[test]
    fn an_interrupt_that_cannot_be_taken_asks_for_the_window_and_is_not_acknowledged() {
        let (mut platform, mut vcpu) = (platform(&[0x41]), FakeVcpu::default());
        offer_events(&mut platform, &mut vcpu);
        assert_eq!(
            (vcpu.queued, vcpu.interrupt_window, platform.interrupt()),
            (None, WindowRequest::Open, Some(0x41))
        );
        vcpu.takes_interrupts = true;
        offer_events(&mut platform, &mut vcpu);
        assert_eq!(
            (vcpu.queued, vcpu.interrupt_window),
            (Some(InjectedEvent::interrupt(0x41)), WindowRequest::None)
        );
    }

    #[test]
    fn the_task_priority_that_the_guest_has_in_the_cpu_counts() {
        let (mut platform, mut vcpu) =
            (platform(&[0x41]), FakeVcpu { class: 4, ..FakeVcpu::ready() });
        offer_events(&mut platform, &mut vcpu);
        assert_eq!((vcpu.queued, vcpu.interrupt_window), (None, WindowRequest::None));
        vcpu.class = 3;
        offer_events(&mut platform, &mut vcpu);
        assert_eq!(vcpu.queued, Some(InjectedEvent::interrupt(0x41)));
    }

    #[test]
    fn an_nmi_goes_before_an_interrupt_and_waits_where_it_is_blocked() {
        let (mut platform, mut vcpu) = (platform(&[0x41]), FakeVcpu::ready());
        platform.raise_nmi();
        offer_events(&mut platform, &mut vcpu);
        assert_eq!(
            (vcpu.queued.take(), vcpu.nmi_window),
            (Some(InjectedEvent::nmi()), WindowRequest::None)
        );
        assert_eq!(vcpu.interrupt_window, WindowRequest::Open, "the interrupt comes behind it");
        vcpu.takes_nmis = false;
        platform.raise_nmi();
        offer_events(&mut platform, &mut vcpu);
        assert_eq!(
            (vcpu.queued, vcpu.nmi_window),
            (Some(InjectedEvent::interrupt(0x41)), WindowRequest::Open)
        );
        assert!(platform.lapic().nmi_pending());
    }
}
