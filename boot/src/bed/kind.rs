//! The kinds of beds.

/// An emulator, or a machine under KVM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Bed {
    /// QEMU's own emulation, which offers SVM everywhere.
    Qemu,
    /// Bochs, which offers VMX; its disks are memory-backed.
    Bochs,
    /// QEMU with KVM, where the machine offers VMX or SVM to guests.
    Kvm,
    /// QEMU with KVM within a Linux within Bochs: VMX with virtio disks on any machine, slowly.
    Nested,
}

impl Bed {
    /// Returns the best bed that this machine supports.
    pub fn best() -> Self {
        if super::kvm::offers_virtualisation() { Self::Kvm } else { Self::Qemu }
    }

    /// Returns the name that the command line and the tests use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Bochs => "bochs",
            Self::Kvm => "kvm",
            Self::Nested => "nested",
        }
    }
}
