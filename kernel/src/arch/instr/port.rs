//! Port input and output.

use core::arch::asm;

macro_rules! port_access {
    (
        $in_name:ident, $out_name:ident, $ty:ty, $register:tt, $in_text:literal, $out_text:literal
    ) => {
        /// Reads a port.
        ///
        /// # Safety
        /// The caller owns the device at the port, or there is none.
        pub unsafe fn $in_name(port: u16) -> $ty {
            let value: $ty;
            // SAFETY: the caller's promise.
            unsafe {
                asm!(
                    $in_text, in("dx") port, out($register) value,
                    options(nostack, preserves_flags)
                )
            };
            value
        }

        /// Writes a port.
        ///
        /// # Safety
        /// The caller owns the device at the port, and the write has no effect on memory in use.
        pub unsafe fn $out_name(port: u16, value: $ty) {
            // SAFETY: the caller's promise.
            unsafe {
                asm!(
                    $out_text, in("dx") port, in($register) value,
                    options(nostack, preserves_flags)
                )
            };
        }
    };
}

port_access!(in8, out8, u8, "al", "in al, dx", "out dx, al");
port_access!(in32, out32, u32, "eax", "in eax, dx", "out dx, eax");
