//! The guest's DR0 to DR3, which neither vendor's world switch saves or loads.
//!
//! The hypervisor sets no breakpoints, and DR7 is off after every exit, so these registers stay in
//! the CPU while a vCPU is loaded.

use x86_64::registers::debug::{DebugAddressRegister, Dr0, Dr1, Dr2, Dr3};

/// DR0 to DR3.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct DebugAddresses([u64; 4]);

impl DebugAddresses {
    /// Reads this CPU's registers.
    pub(super) fn read() -> Self {
        Self([Dr0::read(), Dr1::read(), Dr2::read(), Dr3::read()])
    }

    /// Makes them of DR0 to DR3 in their order.
    pub(super) const fn of(registers: [u64; 4]) -> Self {
        Self(registers)
    }

    /// Returns DR0 to DR3 in their order.
    pub(super) const fn as_array(self) -> [u64; 4] {
        self.0
    }

    /// Writes them to this CPU.
    pub(super) fn load(&self) {
        let [dr0, dr1, dr2, dr3] = self.0;
        Dr0::write(dr0);
        Dr1::write(dr1);
        Dr2::write(dr2);
        Dr3::write(dr3);
    }
}
