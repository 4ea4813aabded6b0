//! A guest that tries forbidden operations at random: `seed=`, `attempts=` in one incarnation,
//! `incarnations=` before it passes.
//!
//! Ports, MSRs, CPUID, control registers, device memory by unusual instructions, virtualisation
//! instructions, jumps to unassigned addresses, random bytes. Each attempt runs until its first
//! trap. An attempt may crash the machine; the next incarnation then continues with other numbers.
//! Everything derives from the seed and the incarnation, which the guest logs.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod attack;

guests::kernel!(run);

#[cfg(target_os = "none")]
fn run(machine: &guests::Machine) -> guests::TestVerdict {
    let option = |name, default| machine.option(name).unwrap_or(default);
    let incarnation = option("tidepool.incarnation", 1);
    if incarnation > option("incarnations", 8) {
        return guests::pass();
    }
    let seed = option("seed", 1);
    guests::log!("seed {seed} incarnation {incarnation}");
    let mut random = attack::Random::new(seed.wrapping_mul(1_000_003).wrapping_add(incarnation));
    let attacker = attack::Attacker::new(machine.ram_bytes());
    for number in 0..option("attempts", 400) {
        let attempt = attacker.next(&mut random);
        if option("verbose", 0) == 1 {
            guests::log!("{number}: {:02x?} {:x?}", attempt.code, attempt.registers);
        }
        guests::attempt::attempt(&attempt.registers, &attempt.code);
    }
    match random.below(3) {
        0 => guests::instr::triple_fault(),
        // The reset register.
        1 => guests::instr::outb(0x602, 1),
        // pvpanic; the guest then halts.
        _ => guests::instr::outb(0x505, 1),
    }
    guests::instr::stop()
}
