//! GDT, TSS and IDT of each CPU.
//!
//! ```text
//! GDT   0x08 code   0x10 data   0x18 TSS (16 bytes)      one per CPU: the TSS is marked busy in it
//! TSS   IST1 double fault   IST2 NMI   IST3 machine check: own stacks, whatever RSP is
//! IDT   256 entries to `entry.s`, one table for all CPUs
//! ```
// UNSAFETY: loads the tables that the CPU uses.
#![expect(unsafe_code)]

use super::percpu::{CpuId, MAX_CPUS, PerCpu};
use core::cell::UnsafeCell;
use spin::Once;
use x86_64::{
    PrivilegeLevel::Ring0,
    VirtAddr,
    instructions::{
        segmentation::{CS, DS, ES, SS, Segment},
        tables,
    },
    registers::control::{Cr4, Cr4Flags},
    structures::{
        DescriptorTablePointer,
        gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector},
        tss::TaskStateSegment,
    },
};

/// Selector of the hypervisor's code segment.
pub const CODE: SegmentSelector = SegmentSelector::new(1, Ring0);
/// Selector of the hypervisor's data segment.
pub const DATA: SegmentSelector = SegmentSelector::new(2, Ring0);
/// Selector of each CPU's TSS in its own GDT.
pub const TSS: SegmentSelector = SegmentSelector::new(3, Ring0);

const IST_STACK: usize = 16 * 1024;
const DOUBLE_FAULT: usize = 8;
const NMI: usize = 2;
const MACHINE_CHECK: usize = 18;

#[repr(C, align(4096))]
struct ExceptionStacks(UnsafeCell<[[u8; IST_STACK]; 3]>);

// SAFETY: never referenced, only used as stacks by their CPU.
unsafe impl Sync for ExceptionStacks {}

static STACKS: PerCpu<ExceptionStacks> =
    PerCpu::new([const { ExceptionStacks(UnsafeCell::new([[0; IST_STACK]; 3])) }; MAX_CPUS]);
static TASKS: PerCpu<Once<TaskStateSegment>> = PerCpu::new([const { Once::new() }; MAX_CPUS]);
static GDTS: PerCpu<Once<GlobalDescriptorTable>> = PerCpu::new([const { Once::new() }; MAX_CPUS]);
static IDT: Once<[InterruptGate; 256]> = Once::new();

unsafe extern "C" {
    static interrupt_entries: [[u8; 16]; 256];
}

core::arch::global_asm!(include_str!("entry.s"), options(att_syntax));

/// An interrupt gate of 64-bit mode; SDM 3A "64-Bit Mode IDT".
#[repr(C)]
struct InterruptGate {
    offset_low: u16,
    selector: u16,
    stack: u8,
    attributes: u8,
    offset_mid: u16,
    offset_high: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<InterruptGate>() == 16);

impl InterruptGate {
    fn new(vector: usize) -> Self {
        const PRESENT_INTERRUPT_GATE: u8 = 0x8e;
        let entry = &raw const interrupt_entries as u64 + 16 * vector as u64;
        let stack = match vector {
            DOUBLE_FAULT => 1,
            NMI => 2,
            MACHINE_CHECK => 3,
            _ => 0,
        };
        Self {
            offset_low: entry as u16,
            selector: CODE.0,
            stack,
            attributes: PRESENT_INTERRUPT_GATE,
            offset_mid: (entry >> 16) as u16,
            offset_high: (entry >> 32) as u32,
            reserved: 0,
        }
    }
}

/// Loads this CPU's tables; once per CPU.
pub fn init(cpu: CpuId) {
    let task = TASKS.of(cpu).call_once(|| task_state(cpu));
    let gdt = GDTS.of(cpu).call_once(|| {
        let mut gdt = GlobalDescriptorTable::new();
        let selectors = [
            Descriptor::kernel_code_segment(),
            Descriptor::kernel_data_segment(),
            Descriptor::tss_segment(task),
        ]
        .map(|descriptor| gdt.append(descriptor));
        assert!(selectors == [CODE, DATA, TSS], "the selectors that others know");
        gdt
    });
    gdt.load();
    // SAFETY: the table just loaded has 64-bit code there.
    unsafe { CS::set_reg(CODE) };
    // SAFETY: its next entry is 64-bit data.
    unsafe { SS::set_reg(DATA) };
    // SAFETY: as above.
    unsafe { DS::set_reg(DATA) };
    // SAFETY: as above. FS and GS keep their null selectors: only GS base counts.
    unsafe { ES::set_reg(DATA) };
    // SAFETY: the entry is an available TSS, which is never freed.
    unsafe { tables::load_tss(TSS) };
    let idt = IDT.call_once(|| core::array::from_fn(InterruptGate::new));
    let pointer = DescriptorTablePointer {
        limit: (size_of_val(idt) - 1) as u16,
        base: VirtAddr::from_ptr(idt),
    };
    // SAFETY: all gates lead to `entry.s`, whose dispatcher handles every vector; the table is
    // never freed.
    unsafe { tables::lidt(&pointer) };
    // SAFETY: a machine check now has a handler, which reports it; without the bit it would
    // silently reset the machine.
    unsafe { Cr4::update(|cr4| cr4.insert(Cr4Flags::MACHINE_CHECK_EXCEPTION)) };
}

fn task_state(cpu: CpuId) -> TaskStateSegment {
    let mut task = TaskStateSegment::new();
    let stacks = STACKS.of(cpu).0.get() as u64;
    let mut table = [VirtAddr::zero(); 7];
    for (i, top) in table.iter_mut().take(3).enumerate() {
        *top = VirtAddr::new(stacks + ((i + 1) * IST_STACK) as u64);
    }
    // The structure is packed: its field may only be assigned whole, never borrowed.
    task.interrupt_stack_table = table;
    task
}
