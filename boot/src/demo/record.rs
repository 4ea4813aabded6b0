//! The output of a demonstration, kept beside its picture, so that text and picture of the README
//! come from the same run.

use anyhow::{Context, Result, bail};
use std::path::Path;

/// The file in the demonstration's folder.
pub const FILE: &str = "run.txt";
/// The README has a run's output between these two lines.
const MARKS: [&str; 2] = ["<!-- the run: begin -->", "<!-- the run: end -->"];
/// Lines of the story that the README shows are those with these words, about a dozen.
const SHOWN: [&str; 7] = [
    "the hypervisor runs",
    " is up, ",
    "worker: crash",
    "crashed (",
    "restarting",
    "incarnation 2 starts",
    "dump is complete",
];

/// Lines of a story and the tables behind it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RunRecord {
    story: Vec<String>,
    tables: String,
}

impl RunRecord {
    /// Prints a line of the story and keeps it.
    pub fn line(&mut self, line: String) {
        println!("{line}");
        self.story.push(line);
    }

    /// Prints the tables and keeps them.
    pub fn tables(&mut self, text: &str) {
        println!("\n{text}");
        self.tables = text.trim_end().to_owned();
    }

    /// Writes the excerpt for the README.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let file = folder.join(FILE);
        std::fs::write(&file, self.excerpt()).with_context(|| format!("{}", file.display()))
    }

    fn excerpt(&self) -> String {
        let shown = self.story.iter().filter(|line| SHOWN.iter().any(|words| line.contains(words)));
        let story: String = shown.map(|line| format!("{line}\n")).collect();
        format!("```console\n$ cargo run\n{story}\n{}\n```\n", self.tables)
    }
}

/// Puts an excerpt into a README's text, between its marks.
///
/// # Errors
/// Where the marks are missing.
pub fn replace(readme: &str, excerpt: &str) -> Result<String> {
    let [begin, end] = MARKS;
    let (Some(start), Some(stop)) = (readme.find(begin), readme.find(end)) else {
        bail!("the README has no lines “{begin}” and “{end}”");
    };
    Ok(format!("{}{begin}\n{excerpt}{}", &readme[..start], &readme[stop..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_has_the_turns_of_the_story_and_all_tables() {
        let mut record = RunRecord::default();
        for line in [
            "  1.0 s  the hypervisor runs: SVM",
            "  2.0 s  a: worker: pass 1",
            "  3.0 s  a: crashed (panic): 5 pages",
        ] {
            record.line(line.to_owned());
        }
        record.tables("  partition  wrong\n  a  0\n\n");
        let excerpt = record.excerpt();
        assert_eq!(
            excerpt,
            "```console\n$ cargo run\n  1.0 s  the hypervisor runs: SVM\n  3.0 s  a: crashed \
             (panic): 5 pages\n\n  partition  wrong\n  a  0\n```\n"
        );
        let readme = format!("# A\n{}\nold\n{}\nB\n", MARKS[0], MARKS[1]);
        let new = replace(&readme, &excerpt).unwrap();
        assert_eq!(new, format!("# A\n{}\n{excerpt}{}\nB\n", MARKS[0], MARKS[1]));
        assert_eq!(replace(&new, &excerpt).unwrap(), new);
        assert!(replace("# A\n", &excerpt).is_err());
    }
}
