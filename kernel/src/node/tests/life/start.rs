//! From nothing to the first instruction.

use super::*;
use GuestStep::*;

#[test]
fn a_start_loads_the_kernel_and_enters_it_with_the_loaders_registers() {
    let code = Gpa::new(GuestScript::MOV);
    let mut life = Life::alone(config("p"), &[&[Read(code)]]);
    life.hear("Start", &["incarnation: 1"]);
    life.hear("Entered", &["partition: \"p\"", "incarnation: 1"]);
    life.finish();
    let record = life.record();
    assert_eq!((record.boots.len(), record.boots[0].regs.rip), (1, ENTRY));
    assert_eq!(record.boots[0].state.cr0 & 1, 1, "PVH begins in protected mode");
    assert_eq!(record.values[0].to_le_bytes()[..2], GuestScript::MOV_BYTES);
    assert_eq!((life.shared().phase(), life.shared().incarnation()), (LifecycleView::Running, 1));
}
