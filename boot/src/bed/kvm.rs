//! The hardware virtualisation that KVM offers to its guests on this machine.
//!
//! A `/dev/kvm` node proves nothing, because nesting may be off. Only the CPUID leaves that KVM
//! reports as supported are proof.

// UNSAFETY: KVM is queried by ioctl, which the standard library does not have.
#![expect(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;

const KVM_GET_SUPPORTED_CPUID: libc::c_ulong = 0xc008_ae05;
const KVM_GET_MSRS: libc::c_ulong = 0xc008_ae88;
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
struct CpuidTable {
    count: u32,
    padding: u32,
    entries: [Entry; ENTRIES],
}

const _: () = assert!(size_of::<Entry>() == 40 && size_of::<CpuidTable>() == 8 + 40 * ENTRIES);

/// The hardware virtualisation that KVM offers its guests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offer {
    /// VMX.
    Vmx,
    /// SVM, with these features (EDX of CPUID 8000000Ah).
    Svm(u32),
}

/// Returns the hardware virtualisation that a guest of KVM would see.
pub fn offered() -> Option<Offer> {
    offer(&supported_cpuid().ok()?)
}

fn offer(table: &[Entry]) -> Option<Offer> {
    let register =
        |leaf, n: usize| table.iter().find(|e| e.function == leaf).map_or(0, |e| e.registers[n]);
    if register(1, 2) & VMX != 0 {
        return Some(Offer::Vmx);
    }
    (register(0x8000_0001, 2) & SVM != 0).then(|| Offer::Svm(register(0x8000_000a, 3)))
}

/// Describes the state of `/dev/kvm`.
pub fn state() -> String {
    match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => "is there".to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "is not there".to_owned(),
        Err(error) => format!("cannot be opened: {error} (is this user in the group kvm?)"),
    }
}

#[repr(C)]
struct OneMsr {
    count: u32,
    padding: u32,
    index: u32,
    reserved: u32,
    data: u64,
}

/// Returns a feature MSR as KVM's guests would see it; `None` where KVM has no such MSR.
pub fn feature_msr(number: u32) -> Option<u64> {
    let kvm = File::options().read(true).write(true).open("/dev/kvm").ok()?;
    let mut msr = OneMsr { count: 1, padding: 0, index: number, reserved: 0, data: 0 };
    // SAFETY: the kernel reads and writes one `kvm_msrs` with `count` entries behind it, which
    // `msr` is.
    let read = unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_GET_MSRS, &raw mut msr) };
    (read == 1).then_some(msr.data)
}

/// Returns whether a guest of KVM would see VMX or SVM.
pub fn offers_virtualisation() -> bool {
    offered().is_some()
}

fn supported_cpuid() -> std::io::Result<Vec<Entry>> {
    let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
    let mut table =
        CpuidTable { count: ENTRIES as u32, padding: 0, entries: [Entry::default(); ENTRIES] };
    // SAFETY: the kernel reads and writes one `kvm_cpuid2` with room for `count` entries, which
    // `table` is (asserted above).
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
        let features = Entry { function: 0x8000_000a, registers: [0, 0, 0, 9], ..Entry::default() };
        assert_eq!(offer(&[leaf(0, 0), leaf(1, VMX)]), Some(Offer::Vmx));
        assert_eq!(offer(&[leaf(1, 0), leaf(0x8000_0001, SVM), features]), Some(Offer::Svm(9)));
        assert_eq!(offer(&[leaf(1, !VMX), leaf(0x8000_0001, !SVM)]), None);
        assert_eq!(offer(&[leaf(0x8000_0001, VMX)]), None);
        assert_eq!(offer(&[]), None);
    }
}
