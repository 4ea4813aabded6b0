//! Checks of the guest's own machine state: modes that it switches to, registers that it may and
//! may not have.

use super::SelftestBench;
use super::guest::{CODE, set_gate};
use crate::addr::Gpa;
use crate::virt::exit::VmExit;
use crate::virt::face::EnabledCpu;
use crate::virt::state::Gpr;

/// Runs all of them.
pub(super) fn all(bench: &mut SelftestBench, cpu: &EnabledCpu) {
    a_guest_switches_itself_to_64_bit_mode(bench);
    a_control_bit_that_is_not_offered_faults(bench);
    a_single_step_reaches_the_guest(bench);
    syscall_registers_follow_the_vcpu(bench, cpu);
}

/// Starts in protected mode without paging. The guest does all of the switch itself, like a kernel
/// started by PVH.
fn a_guest_switches_itself_to_64_bit_mode(bench: &mut SelftestBench) {
    const PML4: u64 = 0x6000;
    let tables = [(PML4, 0x7003_u64), (0x7000, 0x8003), (0x8000, 0x83)]; // one 2 MiB page at 0
    for (page, entry) in tables {
        bench.memory.map(Gpa::new(page));
        bench.memory.copy_in(page, &entry.to_le_bytes());
    }
    #[rustfmt::skip]
    let code = [
        0xb8, 0x20, 0, 0, 0, 0x0f, 0x22, 0xe0,                 // mov eax, PAE; mov cr4, eax
        0xb8, 0, 0x60, 0, 0, 0x0f, 0x22, 0xd8,                 // mov eax, PML4; mov cr3, eax
        0xb9, 0x80, 0, 0, 0xc0, 0x0f, 0x32,                    // mov ecx, EFER; rdmsr
        0x0d, 0, 1, 0, 0, 0x0f, 0x30,                          // or eax, LME; wrmsr
        // mov eax, PG WP NE ET MP PE; mov cr0, eax
        0xb8, 0x33, 0, 1, 0x80, 0x0f, 0x22, 0xc0,
        0xea, 0x2d, 0x10, 0, 0, 0x18, 0,                       // jmp 0x18:here
        0x48, 0xc7, 0xc6, 0xff, 0xff, 0xff, 0xff,              // here: mov rsi, -1
        0xb8, 5, 0, 0, 0, 0x44, 0x0f, 0x22, 0xc0,              // mov eax, 5; mov cr8, rax
        0x44, 0x0f, 0x20, 0xc3, 0x0f, 0x20, 0xc1,              // mov rbx, cr8; mov rcx, cr0
        0x0f, 0x20, 0xe2, 0xf4,                                // mov rdx, cr4; hlt
    ];
    bench.start(&code);
    let exit = run_with_system(bench);
    let regs = *bench.vcpu.regs();
    bench.check(
        "the guest reaches 64-bit code",
        (exit == VmExit::Halt && regs.get(Gpr::Rsi) == u64::MAX).into(),
        exit,
    );
    let seen = (regs.get(Gpr::Rcx), regs.get(Gpr::Rdx));
    bench.check(
        "its control registers read as it wrote them",
        (seen == (0x8001_0033, 0x20)).into(),
        exit,
    );
    let now = bench.vcpu.control_registers();
    let held = (now.cr0, now.cr3, now.cr4, now.efer & 0x500) == (0x8001_0033, PML4, 0x20, 0x500);
    bench.check("and so they look from outside", held.into(), exit);
    bench.check(
        "CR8 is the guest's, and seen",
        (regs.get(Gpr::Rbx) == 5 && bench.vcpu.cr8() == 5).into(),
        exit,
    );
    bench.vcpu.set_cr8(0);
    tables.iter().for_each(|(page, _)| bench.memory.unmap(Gpa::new(*page)));
}

/// Runs to an exit that is not for EFER or a control register: some back ends leave these to the
/// layer above.
fn run_with_system(bench: &mut SelftestBench) -> VmExit {
    loop {
        let length = match bench.run() {
            VmExit::ReadMsr => {
                let efer = bench.vcpu.control_registers().efer;
                bench.vcpu.regs_mut().set_edx_eax(efer);
                2
            }
            VmExit::WriteMsr => {
                let value = bench.vcpu.regs().edx_eax();
                if bench.vcpu.write_efer(value).is_err() {
                    return VmExit::WriteMsr;
                }
                2
            }
            // The guests move from RAX only.
            VmExit::System(access) => match bench.vcpu.move_system(access, Gpr::Rax) {
                Ok(()) => move_length(bench),
                Err(event) => {
                    bench.vcpu.inject(event);
                    continue;
                }
            },
            exit => return exit,
        };
        bench.skip(length);
    }
}

/// Returns the length of the MOV at RIP: a REX prefix names CR8.
fn move_length(bench: &SelftestBench) -> u64 {
    const REX_R: u8 = 0x44;
    let rip = bench.vcpu.regs().rip;
    let first = bench.memory.read(rip & !7).to_le_bytes()[(rip % 8) as usize];
    if first == REX_R { 4 } else { 3 }
}

fn a_control_bit_that_is_not_offered_faults(bench: &mut SelftestBench) {
    const GENERAL_PROTECTION: u64 = 13;
    // mov eax, VMXE; mov cr4, eax; nop; hlt
    bench.start(&[0xb8, 0, 0x20, 0, 0, 0x0f, 0x22, 0xe0, 0x90, 0xf4]);
    set_gate(&bench.memory, GENERAL_PROTECTION, CODE + 9);
    let exit = run_with_system(bench);
    let sp = bench.vcpu.regs().get(Gpr::Rsp);
    let (error_code, rip) = (bench.memory.read(sp) as u32, (bench.memory.read(sp) >> 32) as u32);
    let faulted =
        exit == VmExit::Halt && bench.at() == 9 && error_code == 0 && u64::from(rip) == CODE + 5;
    // QEMU's TCG instead ends the guest's stay with SVM's code for an invalid state.
    let ended = matches!(exit, VmExit::EntryFailed { .. }) && bench.at() == 5;
    bench.check("VMXE in CR4 is refused at the instruction", (faulted || ended).into(), exit);
    bench.memory.write_tables();
}

fn a_single_step_reaches_the_guest(bench: &mut SelftestBench) {
    const SINGLE_STEP: u64 = 1 << 14;
    // pushf; or dword [esp], TF; popf; nop; hlt
    bench.start(&[0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0x90, 0xf4]);
    let exit = bench.run();
    let held = exit == VmExit::Halt && bench.at() == 10 && bench.vcpu.regs().get(Gpr::Rbx) == 1;
    bench.check("a single step reaches the guest's handler once", held.into(), exit);
    bench.check("with its cause in DR6", (bench.vcpu.state().dr6 & SINGLE_STEP != 0).into(), exit);
}

fn syscall_registers_follow_the_vcpu(bench: &mut SelftestBench, cpu: &EnabledCpu) {
    const VALUE: u64 = 0x1234_5678;
    // mov ecx, KERNEL_GS_BASE; mov eax, VALUE; xor edx, edx; wrmsr; hlt
    bench.start(&[0xb9, 2, 1, 0, 0xc0, 0xb8, 0x78, 0x56, 0x34, 0x12, 0x31, 0xd2, 0x0f, 0x30, 0xf4]);
    let exit = bench.run();
    let loaded = bench.vcpu.state().kernel_gs_base;
    bench.check(
        "the guest writes KERNEL_GS_BASE itself",
        (exit == VmExit::Halt && loaded == VALUE).into(),
        exit,
    );
    bench.vcpu.unload();
    let away = bench.vcpu.state().kernel_gs_base;
    bench.vcpu.load(cpu);
    let back = bench.vcpu.state().kernel_gs_base;
    bench.check("and it follows the vCPU", ((away, back) == (VALUE, VALUE)).into(), exit);
}
