//! The part of gdb's remote protocol for a stopped machine: registers and memory are read, nothing
//! is changed.
//!
//! ```text
//!   $packet#checksum   each answered by + and a packet of our own; an empty one says "not supported"
//! ```
//!
//! "Debugging with gdb", appendix "gdb Remote Serial Protocol".

use anyhow::Result;
use std::io::{BufRead, Write};

/// Bytes of memory in one answer.
const MOST_BYTES: usize = 0x1000;

/// The machine that a debugger inspects.
pub trait DebugTarget {
    /// Returns the registers in gdb's order.
    fn registers(&self) -> &[u8];
    /// Reads up to `length` bytes from virtual address `start`.
    fn memory(&self, start: u64, length: usize) -> Vec<u8>;
}

/// Answers the debugger until it disconnects.
///
/// # Errors
/// Where the connection fails.
pub fn serve(
    target: &impl DebugTarget,
    input: &mut impl BufRead,
    output: &mut impl Write,
) -> Result<()> {
    while let Some(packet) = next_packet(input, output)? {
        let leaves = matches!(packet.first(), Some(b'D' | b'k'));
        let reply = answer(target, &String::from_utf8_lossy(&packet));
        write!(output, "${reply}#{:02x}", checksum(reply.as_bytes()))?;
        output.flush()?;
        if leaves {
            break;
        }
    }
    Ok(())
}

/// Returns the next complete packet and acknowledges it. A packet with a wrong checksum is
/// requested again.
fn next_packet(input: &mut impl BufRead, output: &mut impl Write) -> Result<Option<Vec<u8>>> {
    loop {
        let mut skipped = Vec::new();
        input.read_until(b'$', &mut skipped)?;
        let mut packet = Vec::new();
        input.read_until(b'#', &mut packet)?;
        let mut digits = [0; 2];
        if packet.pop() != Some(b'#') || input.read_exact(&mut digits).is_err() {
            return Ok(None);
        }
        let right =
            u8::from_str_radix(&String::from_utf8_lossy(&digits), 16) == Ok(checksum(&packet));
        output.write_all(if right { b"+" } else { b"-" })?;
        output.flush()?;
        if right {
            return Ok(Some(packet));
        }
    }
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn answer(target: &impl DebugTarget, packet: &str) -> String {
    match packet.split_at_checked(1) {
        Some(("g", "")) => hexadecimal(target.registers()),
        Some(("m", range)) => memory(target, range),
        Some(("H" | "D", _)) => "OK".to_owned(),
        // The vCPU stays at the crash; "continue" and "step" do not move it.
        Some(("?" | "c" | "s", _)) => "S05".to_owned(),
        // Requests to change something.
        Some(("G" | "M" | "P" | "X", _)) => "E01".to_owned(),
        _ => query(packet).to_owned(),
    }
}

fn query(packet: &str) -> &'static str {
    match packet {
        "qC" => "QC1",
        "qfThreadInfo" => "m1",
        "qsThreadInfo" => "l",
        "qAttached" => "1",
        _ if packet.starts_with("qSupported") => "PacketSize=4000",
        _ => "",
    }
}

fn memory(target: &impl DebugTarget, range: &str) -> String {
    let numbers = range.split_once(',').and_then(|(start, length)| {
        Some((u64::from_str_radix(start, 16).ok()?, usize::from_str_radix(length, 16).ok()?))
    });
    let Some((start, length)) = numbers else { return "E01".to_owned() };
    let bytes = target.memory(start, length.min(MOST_BYTES));
    if bytes.is_empty() && length > 0 { "E14".to_owned() } else { hexadecimal(&bytes) }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct FakeTarget;

    impl DebugTarget for FakeTarget {
        fn registers(&self) -> &[u8] {
            &[1, 0xff]
        }
        fn memory(&self, start: u64, length: usize) -> Vec<u8> {
            (0..length as u64)
                .map(|n| start.wrapping_add(n))
                .take_while(|at| *at < 0x1004)
                .map(|at| at as u8)
                .collect()
        }
    }

    fn session(input: &[u8]) -> String {
        let mut output = Vec::new();
        serve(&FakeTarget, &mut &*input, &mut output).unwrap();
        String::from_utf8(output).unwrap()
    }

    fn packet(text: &str) -> String {
        format!("${text}#{:02x}", checksum(text.as_bytes()))
    }

    #[test]
    fn registers_and_memory_are_read() {
        let asked =
            [packet("g"), packet("m1001,2"), packet("m1002,10"), packet("m2000,1")].concat();
        let replies = [packet("01ff"), packet("0102"), packet("0203"), packet("E14")]
            .map(|reply| format!("+{reply}"));
        assert_eq!(session(asked.as_bytes()), replies.concat());
    }

    #[test]
    fn nothing_is_changed_and_nothing_runs() {
        let asked = [
            packet("M1000,1:00"),
            packet("c"),
            packet("vMustReplyEmpty"),
            packet("D"),
            packet("g"),
        ]
        .concat();
        let replies = [packet("E01"), packet("S05"), packet(""), packet("OK")]
            .map(|reply| format!("+{reply}"));
        assert_eq!(session(asked.as_bytes()), replies.concat());
    }

    #[test]
    fn a_damaged_packet_is_asked_for_again_and_a_lost_connection_ends_it() {
        assert_eq!(session(b"$g#00$m"), "-");
        assert_eq!(session(b""), "");
        assert_eq!(
            session(&[b"+\x03".as_slice(), packet("mzz").as_bytes()].concat()),
            format!("+{}", packet("E01"))
        );
    }
}
