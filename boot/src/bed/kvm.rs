//! Does KVM here offer hardware virtualisation to its guests?
//!
//! A `/dev/kvm` node proves nothing: nesting may be off. Only the CPUID leaves that KVM says it supports tell.

// UNSAFETY: KVM is asked by ioctl, which the standard library does not have.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;

const KVM_GET_SUPPORTED_CPUID: libc::c_ulong = 0xc008_ae05;
const ENTRIES: usize = 256;
/// CPUID.1:ECX bit 5: VMX.
const VMX: u32 = 1 << 5;
/// CPUID.80000001h:ECX bit 2: SVM.
const SVM: u32 = 1 << 2;

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Entry {
    function: u32,
    index: u32,
    flags: u32,
    registers: [u32; 4],
    padding: [u32; 3],
}

#[repr(C)]
struct Table {
    count: u32,
    padding: u32,
    entries: [Entry; ENTRIES],
}

const _: () = assert!(size_of::<Entry>() == 40 && size_of::<Table>() == 8 + 40 * ENTRIES);

/// Returns whether a guest of KVM would see VMX or SVM.
pub fn offers_virtualisation() -> bool {
    supported_cpuid().is_ok_and(|table| nested(&table))
}

fn nested(table: &[Entry]) -> bool {
    let ecx = |leaf| table.iter().find(|e| e.function == leaf).map_or(0, |e| e.registers[2]);
    ecx(1) & VMX != 0 || ecx(0x8000_0001) & SVM != 0
}

fn supported_cpuid() -> std::io::Result<Vec<Entry>> {
    let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
    let mut table = Table { count: ENTRIES as u32, padding: 0, entries: [Entry::default(); ENTRIES] };
    // SAFETY: the kernel reads and writes one `kvm_cpuid2` with room for `count` entries, which `table` is (asserted above).
    let result = unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_GET_SUPPORTED_CPUID, &raw mut table) };
    if result < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(table.entries[..ENTRIES.min(table.count as usize)].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, ecx: u32) -> Entry {
        Entry { function, registers: [0, 0, ecx, 0], ..Entry::default() }
    }

    #[test]
    fn only_vmx_or_svm_in_their_own_leaves_count() {
        assert!(nested(&[leaf(0, 0), leaf(1, VMX)]));
        assert!(nested(&[leaf(1, 0), leaf(0x8000_0001, SVM)]));
        assert!(!nested(&[leaf(1, !VMX), leaf(0x8000_0001, !SVM)]));
        assert!(!nested(&[leaf(0x8000_0001, VMX)]));
        assert!(!nested(&[]));
    }
}
