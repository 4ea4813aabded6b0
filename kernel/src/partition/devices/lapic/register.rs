//! Numbers of the local APIC's registers: offset / 16 in memory, MSR - 0x800 in x2APIC mode.
//! SDM 3A "Local APIC Register Address Map" and "x2APIC Register Address Space".
#![expect(missing_docs, reason = "the manual's names")]

pub const ID: u8 = 0x02;
pub const VERSION: u8 = 0x03;
pub const TASK_PRIORITY: u8 = 0x08;
pub const ARBITRATION_PRIORITY: u8 = 0x09;
pub const PROCESSOR_PRIORITY: u8 = 0x0a;
pub const END_OF_INTERRUPT: u8 = 0x0b;
pub const LOGICAL_DESTINATION: u8 = 0x0d;
pub const DESTINATION_FORMAT: u8 = 0x0e;
pub const SPURIOUS: u8 = 0x0f;
pub const IN_SERVICE: u8 = 0x10;
pub const TRIGGER_MODE: u8 = 0x18;
pub const REQUEST: u8 = 0x20;
pub const ERROR_STATUS: u8 = 0x28;
pub const COMMAND: u8 = 0x30;
pub const COMMAND_HIGH: u8 = 0x31;
/// First of the six local vector table entries: timer, thermal, performance, LINT0, LINT1, error.
pub const LOCAL_VECTOR: u8 = 0x32;
pub const INITIAL_COUNT: u8 = 0x38;
pub const CURRENT_COUNT: u8 = 0x39;
pub const DIVIDE: u8 = 0x3e;
pub const SELF_IPI: u8 = 0x3f;
/// First MSR of the x2APIC range.
pub const X2APIC_BASE: u32 = 0x800;
/// Last MSR of the x2APIC range.
pub const X2APIC_LAST: u32 = 0x8ff;
