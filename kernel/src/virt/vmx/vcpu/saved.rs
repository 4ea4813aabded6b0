//! Events and other hidden state of a vCPU whose partition is suspended.

use super::events::blocking;
use super::{Residency, VmxVcpu};
use crate::virt::debug::DebugAddresses;
use crate::virt::efer;
use crate::virt::saved::{SavedEvent, SavedEvents};
use crate::virt::vmx::control_register::cr0;
use crate::virt::vmx::event::{EntryEvent, InterruptionInfo};
use crate::virt::vmx::field::guest;
use crate::virt::vmx::nmi::NmiRecord;

const POINTERS: [crate::virt::vmx::field::VmcsField<crate::virt::vmx::field::Bits64>; 4] =
    [guest::PDPTE0, guest::PDPTE1, guest::PDPTE2, guest::PDPTE3];

impl VmxVcpu {
    /// See [`crate::virt::Vcpu::save_events`].
    ///
    /// # Panics
    /// If the vCPU is loaded.
    pub fn save_events(&self) -> SavedEvents {
        assert!(self.residency == Residency::Unloaded, "a vCPU is saved from memory");
        let (interruptibility, pending_debug) = self.with_vmcs(|vmcs| {
            (vmcs.read(guest::INTERRUPTIBILITY), vmcs.read(guest::PENDING_DEBUG))
        });
        let event = |event: EntryEvent| SavedEvent {
            word: event.info.into_bits().into(),
            error_code: event.error_code,
            length: event.length,
        };
        SavedEvents {
            queued: self.queued.map(event),
            virtual_interrupt: None,
            shadow: (interruptibility & blocking::SHADOW) as u8,
            blocks_nmis: self.nmi.is_blocked(interruptibility & blocking::BY_NMI != 0),
            pending_debug,
            task_priority: self.task_priority,
            debug_addresses: self.live.breakpoints.as_array(),
            directory_pointers: self.directory_pointers(),
        }
    }

    /// See [`crate::virt::Vcpu::restore_events`].
    ///
    /// # Panics
    /// If the vCPU is loaded.
    pub fn restore_events(&mut self, saved: &SavedEvents) {
        assert!(self.residency == Residency::Unloaded, "a vCPU is restored in memory");
        let nmis = if saved.blocks_nmis { blocking::BY_NMI } else { 0 };
        let shadow = u32::from(saved.shadow) & blocking::SHADOW;
        self.with_vmcs(|vmcs| {
            vmcs.write(guest::INTERRUPTIBILITY, shadow | nmis);
            vmcs.write(guest::PENDING_DEBUG, saved.pending_debug);
            for (field, pointer) in POINTERS.into_iter().zip(saved.directory_pointers) {
                vmcs.write(field, pointer);
            }
        });
        self.queued = saved.queued.map(|event| EntryEvent {
            info: InterruptionInfo::from_bits(event.word as u32),
            error_code: event.error_code,
            length: event.length,
        });
        let has_nmi = saved.blocks_nmis || self.queued.is_some_and(|event| event.is_nmi());
        self.nmi = if has_nmi { NmiRecord::Handling } else { NmiRecord::Idle };
        self.live.breakpoints = DebugAddresses::of(saved.debug_addresses);
        self.set_cr8(saved.task_priority);
    }

    /// Returns the PDPTEs while 32-bit PAE paging is active, else zeros.
    fn directory_pointers(&self) -> [u64; 4] {
        let now = self.control_registers();
        let is_pae = now.cr0 & cr0::PG != 0
            && now.cr4 & crate::virt::cr4::PAE != 0
            && now.efer & efer::LMA == 0;
        if !is_pae {
            return [0; 4];
        }
        self.with_vmcs(|vmcs| POINTERS.map(|field| vmcs.read(field)))
    }
}
