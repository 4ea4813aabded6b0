//! A case that does not end: the backtraces of its threads and its child processes, for the
//! failure's text.

use std::fs;
use std::io::{Read, Seek};
use std::process::{Command, Stdio};

/// Crates whose functions are shown in a backtrace.
const OURS: [&str; 3] = ["boot::", "tests::", "system::"];

/// Describes the children of this process and, where gdb is installed and may attach, the calls of
/// its threads.
pub(crate) fn describe() -> String {
    format!("processes:\n{}calls, the innermost first:\n{}", children(), calls(&backtraces()))
}

/// Returns a line for each child: its number and its command.
fn children() -> String {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let of_task =
        |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
    let line = |child: &str| {
        let command = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        format!("  {child}: {}\n", String::from_utf8_lossy(&command).replace('\0', " ").trim())
    };
    tasks
        .map(of_task)
        .map(|children| children.split_whitespace().map(line).collect::<String>())
        .collect()
}

/// Returns gdb's backtrace of all threads, or an empty string where gdb fails.
///
/// gdb stops all threads of this process. So its output goes to a file: a pipe would fill up
/// without a reader. For the same reason another program, `timeout`, limits its time.
fn backtraces() -> String {
    let process = std::process::id().to_string();
    let arguments = ["-p", &process, "-batch", "-ex", "thread apply all backtrace"];
    let run = || {
        let mut file = tempfile::tempfile()?;
        Command::new("timeout")
            .args(["60", "gdb"])
            .args(arguments)
            .stdout(file.try_clone()?)
            .stderr(Stdio::null())
            .status()?;
        let mut said = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut said)?;
        std::io::Result::Ok(said)
    };
    let said = run().unwrap_or_default();
    String::from_utf8_lossy(&said).into_owned()
}

/// Returns from gdb's output the threads that are in functions of ours, with these functions.
fn calls(said: &str) -> String {
    let threads = said.split("\nThread ").map(|thread| {
        let frames = thread.lines().filter(|line| {
            line.starts_with('#')
                && !line.contains("/rustc/")
                && OURS.iter().any(|part| line.contains(part))
        });
        let name = thread.lines().next().unwrap_or("");
        (name, frames.map(|frame| format!("    {frame}\n")).collect::<String>())
    });
    threads
        .filter(|(_, frames)| !frames.is_empty())
        .map(|(name, frames)| format!("  {name}\n{frames}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn threads_in_functions_of_ours_are_told() {
        let said = "[New LWP 7]\n\nThread 2 (LWP 7 \"serial\"):\n#0  0x1 in recv ()\n#1  0x2 in \
                    boot::serial::listen (x=1)\n\nThread 1 (LWP 6 \"main\"):\n#0  0x3 in poll ()\n";
        assert_eq!(
            calls(said),
            "  2 (LWP 7 \"serial\"):\n    #1  0x2 in boot::serial::listen (x=1)\n"
        );
    }

    #[test]
    fn a_child_is_told_with_its_command() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let line = format!("{}: sleep 60", child.id());
        let deadline = Instant::now() + Duration::from_secs(20);
        // The new process shows its command only after exec.
        let is_told = (0..)
            .map(|_| children().contains(&line))
            .find(|told| *told || Instant::now() > deadline);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(is_told, Some(true), "{}", children());
    }
}
