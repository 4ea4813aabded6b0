//! The guest runs.

use super::*;
use GuestStep::*;

/// The data port of COM1.
const COM1: u16 = 0x3f8;

#[test]
fn console_output_reaches_the_line() {
    let text = b"hello\n";
    let program: Vec<_> = text.iter().map(|&byte| Out(COM1, byte)).collect();
    let mut life = Life::alone(config("p"), &[&program]);
    life.finish();
    life.turn();
    assert_eq!(life.printed, "hello\n");
}
