//! Talks on the first serial line: prints `name=` (a number), prompts, and repeats each line of
//! input.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::kernel!(run);

#[cfg(target_os = "none")]
use guests::instr::{inb, outb, pause};

#[cfg(target_os = "none")]
const DATA: u16 = 0x3f8;
#[cfg(target_os = "none")]
const LINE_STATUS: u16 = 0x3fd;

#[cfg(target_os = "none")]
fn run(machine: &guests::Machine) -> guests::TestVerdict {
    let name = b'0' + machine.option("name").unwrap_or(0) as u8;
    loop {
        say(&[b'#', name, b'>', b' ']);
        let (mut line, mut len) = ([0_u8; 64], 0);
        loop {
            let key = key();
            if key == b'\r' {
                break;
            }
            say(&[key]);
            line[len] = key;
            len = (len + 1).min(63);
        }
        say(b"\r\nheard ");
        say(&line[..len]);
        say(b"\r\n");
        guests::log!("heard {}", core::str::from_utf8(&line[..len]).unwrap_or("?"));
    }
}

#[cfg(target_os = "none")]
fn say(text: &[u8]) {
    text.iter().for_each(|&byte| outb(DATA, byte));
}

#[cfg(target_os = "none")]
fn key() -> u8 {
    while inb(LINE_STATUS) & 1 == 0 {
        pause();
    }
    inb(DATA)
}
