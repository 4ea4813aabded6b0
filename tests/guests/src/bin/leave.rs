//! Resets the machine in another way in each incarnation; passes when all ways have been used.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::kernel!(run);

#[cfg(target_os = "none")]
fn run(machine: &guests::Machine) -> guests::TestVerdict {
    use guests::instr::{outb, reset_by_triple_fault};
    use guests::real_mode::jump;
    let incarnation = machine.option("tidepool.incarnation").unwrap_or(1);
    guests::log!("way {incarnation}");
    match incarnation {
        // The firmware's entry point, at the two addresses that kernels use.
        1 => jump(0xf000, 0xfff0),
        2 => jump(0xffff, 0x0000),
        3 => reset_by_triple_fault(),
        // The FADT's reset register, reset control, the keyboard controller, port A.
        4 => outb(0x602, 1),
        5 => outb(0xcf9, 6),
        6 => outb(0x64, 0xfe),
        7 => outb(0x92, 1),
        _ => return guests::pass(),
    }
    guests::fail("still here")
}
