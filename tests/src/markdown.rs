//! Checks that Markdown has one sentence a line, so that a change of one sentence changes one line.
//!
//! Code, tables and headings are left alone.

/// Returns the numbers of the lines, from 1, that go on with a sentence of the line before, or have
/// a second sentence.
pub fn mixed_lines(text: &str) -> Vec<usize> {
    let (mut found, mut is_code, mut is_open) = (Vec::new(), false, false);
    for (index, line) in text.lines().enumerate() {
        let words = line.trim_start();
        if words.starts_with("```") {
            is_code = !is_code;
            is_open = false;
            continue;
        }
        if is_code || line.starts_with("    ") || words.is_empty() || words.starts_with(['#', '|'])
        {
            is_open = false;
            continue;
        }
        let plain = without_code(without_run_in_heading(words));
        if (is_open && !begins_item(words)) || has_two_sentences(&plain) {
            found.push(index + 1);
        }
        is_open = !is_ended(&plain);
    }
    found
}

/// Returns whether a line begins a list's item.
fn begins_item(line: &str) -> bool {
    let number = line.trim_start_matches(|c: char| c.is_ascii_digit());
    line.starts_with("* ") || line.starts_with("- ") || (number != line && number.starts_with(". "))
}

/// Returns the line without a heading such as `**Context.**` or `*Context.*` before its sentence.
fn without_run_in_heading(line: &str) -> &str {
    let text = line.strip_prefix("* ").unwrap_or(line);
    let bold = text.strip_prefix("**").and_then(|rest| rest.split_once(".** "));
    let heading = bold.or_else(|| text.strip_prefix('*').and_then(|rest| rest.split_once(".* ")));
    heading.map_or(line, |(_, sentence)| sentence)
}

/// Returns the line with `x` for each span of code, which has punctuation of its own.
fn without_code(line: &str) -> String {
    let parts = line.split('`').enumerate();
    parts.map(|(index, part)| if index % 2 == 0 { part } else { "x" }).collect()
}

/// Returns whether a line ends as a sentence, a list's introduction or a row of links does.
fn is_ended(line: &str) -> bool {
    line.trim_end_matches(['"', '”', ')', '*']).ends_with(['.', ':', '?', '!', '·'])
}

/// Returns whether a sentence ends and another begins within the line.
fn has_two_sentences(line: &str) -> bool {
    let ends = line.match_indices(['.', '?', '!']);
    ends.into_iter().any(|(at, mark)| {
        let before = line[..at].ends_with(|c: char| c.is_lowercase());
        let rest = line[at + mark.len()..].trim_start_matches(['"', '”', ')', '*']);
        let next = rest.trim_start();
        before
            && next.len() < rest.len()
            && next.starts_with(|c: char| c.is_uppercase() || c == '[')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sentence_a_line_is_right() {
        let text = "# A. B\n\n**Heading.** One sentence.\nAnother, with `a. B` in it:\n\n\
                    * an item\n* *Another.* Item.\n\n1. First.\n   Its second sentence.\n\n\
                    | a. B | c |\n\n```\nno. Check\nhere\n```\n\n    nor. Here\n    at all\n";
        assert_eq!(mixed_lines(text), [0; 0]);
    }

    #[test]
    fn a_wrapped_sentence_and_a_second_one_are_found() {
        assert_eq!(mixed_lines("A sentence that\ngoes on.\n"), [2]);
        assert_eq!(mixed_lines("* An item that\n  goes on.\n"), [2]);
        assert_eq!(mixed_lines("One. Two.\nThree (in `code`.) Four.\n"), [1, 2]);
    }
}
