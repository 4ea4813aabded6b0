//! Standard input as the console's keyboard.
//!
//! Every key goes to the machine. In addition, the hypervisor's escape key typed three times in a
//! row is recognised here: a hung hypervisor cannot carry out `quit`.

use crate::interrupt;
use crate::screen::{HostScreen, Notice};
use anyhow::Result;
use std::io::{IsTerminal, Read, Write};
use std::net::TcpStream;

/// Ctrl-].
const ESCAPE: u8 = 0x1d;
/// Escape keys in a row that open the question whether to end the machine at once.
const CALLS: u32 = 3;
const QUESTION: &str =
    "Ctrl-] three times: q ends the machine at once, as a power cut would; any other key goes on";

/// Forwards standard input to the console. The thread ends with the input or the process.
///
/// # Errors
/// Where the system refuses a thread.
pub fn type_through(console: TcpStream, screen: HostScreen) -> Result<()> {
    let escape = std::io::stdin().is_terminal().then(EmergencyKey::default);
    std::thread::Builder::new()
        .name("keyboard".into())
        .spawn(move || listen(console, &screen, escape))?;
    Ok(())
}

fn listen(mut console: TcpStream, screen: &HostScreen, mut emergency: Option<EmergencyKey>) {
    let mut bytes = [0; 256];
    let mut input = std::io::stdin().lock();
    while let Ok(n @ 1..) = input.read(&mut bytes) {
        let mut typed = bytes[..n].to_vec();
        if let Some(emergency) = &mut emergency {
            typed.retain(|&key| match emergency.take(key) {
                Pressed::Key => true,
                Pressed::Question => {
                    screen.notice(Notice::new(QUESTION.to_owned()));
                    true
                }
                Pressed::Answer => false,
                Pressed::End => {
                    interrupt::end();
                    false
                }
            });
        }
        if console.write_all(&typed).is_err() {
            break;
        }
    }
}

/// The meaning of a key to us, besides its meaning to the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pressed {
    /// None.
    Key,
    /// Ask whether to end the machine.
    Question,
    /// The answer is no; this key is not sent to the machine.
    Answer,
    /// End the machine.
    End,
}

/// Counts escape keys typed in a row.
#[derive(Clone, Copy, Default, Debug)]
struct EmergencyKey {
    in_a_row: u32,
}

impl EmergencyKey {
    fn take(&mut self, key: u8) -> Pressed {
        match (self.in_a_row, key) {
            (CALLS, b'q' | b'Q') => Pressed::End,
            // A key that is held down repeats.
            (CALLS, ESCAPE) => Pressed::Answer,
            (CALLS, _) => {
                self.in_a_row = 0;
                Pressed::Answer
            }
            (_, ESCAPE) => {
                self.in_a_row += 1;
                if self.in_a_row == CALLS { Pressed::Question } else { Pressed::Key }
            }
            _ => {
                self.in_a_row = 0;
                Pressed::Key
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressed(keys: &[u8]) -> Vec<Pressed> {
        let mut emergency = EmergencyKey::default();
        keys.iter().map(|&key| emergency.take(key)).collect()
    }

    #[test]
    fn three_escape_keys_and_q_end_the_machine() {
        assert_eq!(pressed(b"\x1d\x1d\x1dq")[2..], [Pressed::Question, Pressed::End]);
    }

    #[test]
    fn any_other_answer_is_taken_and_goes_on() {
        assert_eq!(
            pressed(b"\x1d\x1d\x1d\x1d\x03\x03")[3..],
            [Pressed::Answer, Pressed::Answer, Pressed::Key]
        );
    }

    #[test]
    fn escape_keys_with_others_between_are_keys() {
        assert!(
            pressed(b"\x1dlist\r\x1d\x1dq\x03\x1a\x1c\x1d")
                .iter()
                .all(|pressed| *pressed == Pressed::Key)
        );
    }
}
