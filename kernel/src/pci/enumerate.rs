//! Finds every function of the machine: on bus 0, and on the buses behind bridges as numbered by
//! firmware.

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

const DEVICES: u8 = 32;
const FUNCTIONS: u8 = 8;
/// Value of a read where no function is.
const NOBODY: u32 = !0;

/// Identity of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FunctionIdentity {
    /// The vendor.
    pub vendor: u16,
    /// The vendor's number for the device.
    pub device: u16,
    /// Class, subclass and programming interface.
    pub class: u32,
}

/// Calls `found` for every function.
///
/// A bus is visited once, whatever the bridges' registers say, so this ends on any machine.
pub fn functions<C: ConfigurationAccess>(
    access: &C,
    mut found: impl FnMut(DeviceFunction, FunctionIdentity),
) {
    let mut seen = [false; 256];
    seen[0] = true;
    let mut pending = arrayvec::ArrayVec::<u8, 256>::new();
    pending.push(0);
    while let Some(bus) = pending.pop() {
        visit_bus(access, bus, |function, identity| {
            if let Some(secondary) = secondary_bus(access, function)
                && !core::mem::replace(&mut seen[usize::from(secondary)], true)
            {
                pending.push(secondary);
            }
            found(function, identity);
        });
    }
}

fn visit_bus<C: ConfigurationAccess>(
    access: &C,
    bus: u8,
    mut found: impl FnMut(DeviceFunction, FunctionIdentity),
) {
    for device in 0..DEVICES {
        for function in 0..FUNCTIONS {
            let at = DeviceFunction { bus, device, function };
            if let Some(identity) = identity(access, at) {
                found(at, identity);
            }
            // A device with one function may respond at all eight function numbers.
            if function == 0 && !has_more_functions(access, at) {
                break;
            }
        }
    }
}

fn identity<C: ConfigurationAccess>(access: &C, at: DeviceFunction) -> Option<FunctionIdentity> {
    let id = access.read_word(at, 0);
    if id == NOBODY {
        return None;
    }
    let class = access.read_word(at, 8) >> 8;
    Some(FunctionIdentity { vendor: id as u16, device: (id >> 16) as u16, class })
}

/// Returns the header type: bits 0 to 6 the layout, bit 7 "multi-function".
fn header_type<C: ConfigurationAccess>(access: &C, at: DeviceFunction) -> u8 {
    (access.read_word(at, 0xc) >> 16) as u8
}

fn has_more_functions<C: ConfigurationAccess>(access: &C, at: DeviceFunction) -> bool {
    access.read_word(at, 0) != NOBODY && header_type(access, at) & 0x80 != 0
}

fn secondary_bus<C: ConfigurationAccess>(access: &C, at: DeviceFunction) -> Option<u8> {
    const BRIDGE: u8 = 1;
    (header_type(access, at) & 0x7f == BRIDGE).then(|| (access.read_word(at, 0x18) >> 8) as u8)
}

#[cfg(test)]
mod tests {
    use super::super::fake::FakeBus;
    use super::*;

    fn at(bus: u8, device: u8, function: u8) -> DeviceFunction {
        DeviceFunction { bus, device, function }
    }

    fn found(bus: &FakeBus) -> Vec<DeviceFunction> {
        let mut all = Vec::new();
        functions(bus, |function, _| all.push(function));
        all
    }

    #[test]
    fn functions_behind_bridges_are_found_and_a_loop_of_bridges_ends() {
        let mut bus = FakeBus::default();
        bus.add(at(0, 3, 0), 0x1af4, 0x1042);
        bus.add_bridge(at(0, 4, 0), 2);
        bus.add(at(2, 0, 0), 0x1af4, 0x1042);
        bus.add_bridge(at(2, 1, 0), 0);
        assert_eq!(found(&bus), [at(0, 3, 0), at(0, 4, 0), at(2, 0, 0), at(2, 1, 0)]);
    }

    #[test]
    fn other_functions_are_asked_only_where_there_are_some() {
        let mut bus = FakeBus::default();
        bus.add(at(0, 1, 0), 1, 1);
        bus.add(at(0, 1, 3), 1, 2); // echo of a device that ignores the function number
        bus.add(at(0, 2, 0), 1, 1);
        bus.set(at(0, 2, 0), 0xc, 0x80 << 16);
        bus.add(at(0, 2, 5), 1, 3);
        assert_eq!(found(&bus), [at(0, 1, 0), at(0, 2, 0), at(0, 2, 5)]);
    }
}
