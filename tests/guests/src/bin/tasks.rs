//! Switches tasks by hardware, in another way in each incarnation; passes when all ways have been
//! used.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::kernel!(run);

#[cfg(target_os = "none")]
fn run(machine: &guests::Machine) -> guests::TestVerdict {
    use guests::tasks::{WAYS, switch};
    let incarnation = machine.option("tidepool.incarnation").unwrap_or(1);
    guests::log!("way {incarnation}");
    match u32::try_from(incarnation - 1) {
        Ok(way) if way < WAYS => switch(way),
        _ => guests::pass(),
    }
}
