//! The house rules that a machine can check. Each test lists every violation as `file:line: text`.

use tests::modules::{ROOTS, unseen_tests};
use tests::rooms::{self, ROOMS};
use tests::source::{Source, files};

/// Lines above a place in which its note is searched.
const NOTE_DISTANCE: usize = 12;
/// Maximum number of lines of a file that is no test.
const LONGEST_FILE: usize = 600;
/// Number of lines from which a file is reported as long.
const LONG_FILE: usize = 400;

fn rust() -> Vec<Source> {
    files(&[".rs"])
}

/// Collects the lines for which `wrong` returns true; it also gets the lines before.
fn violations(sources: &[Source], wrong: impl Fn(&Source, &[(usize, &str)], &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let lines = source.lines();
        for (index, (number, line)) in lines.iter().enumerate() {
            if wrong(source, &lines[index.saturating_sub(NOTE_DISTANCE)..index], line) {
                found.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    found
}

#[track_caller]
fn none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// Returns whether a file is another one than this, which contains the forbidden texts itself.
fn others(source: &Source) -> bool {
    source.path != "tests/house_rules.rs"
}

#[test]
fn unsafe_modules_say_why() {
    let found = violations(&rust(), |source, before, line| {
        let opens = line.contains("(unsafe_code") && others(source);
        opens && !line.contains("UNSAFETY:") && !before.iter().any(|(_, line)| line.contains("UNSAFETY:"))
    });
    none(&found, "expect(unsafe_code) needs an UNSAFETY note above it");
}

/// An expectation that no longer comes true is a warning of the compiler; an allowance stays.
#[test]
fn lints_are_expected_with_a_reason() {
    let found = violations(&rust(), |source, _, line| {
        let line = line.trim();
        let is_attribute = line.starts_with("#[") || line.starts_with("#![");
        let reason = line.contains("reason = \"") || line.contains("expect(unsafe_code)");
        is_attribute && others(source) && (line.contains("allow(") || line.contains("expect(") && !reason)
    });
    none(&found, "write #[expect(lint, reason = \"…\")], or expect(unsafe_code) under an UNSAFETY note");
}

#[test]
fn headings_of_documentation_stand_alone() {
    let found = violations(&rust(), |source, _, line| {
        let text = line.trim_start().strip_prefix("/// # ");
        others(source) && text.is_some_and(|text| ["Errors ", "Panics ", "Safety "].iter().any(|word| text.starts_with(word)))
    });
    none(&found, "the text begins on the line below the heading");
}

#[test]
fn unsafe_operations_name_their_guarantor() {
    let found = violations(&rust(), |source, before, line| {
        let operation = ["unsafe {", "unsafe impl", "#[unsafe("].iter().any(|word| line.contains(word));
        let noted = |text: &str| text.contains("SAFETY:") || text.contains("# Safety");
        operation && others(source) && !is_comment(line) && !noted(line) && !before.iter().any(|(_, text)| noted(text))
    });
    none(&found, "unsafe needs a SAFETY note above it");
}

#[test]
fn inline_assembly_is_where_it_may_be() {
    const INLINE: &[&str] = &["kernel/src/arch/instr/", "tests/guests/src/instr.rs"];
    const WHOLE: &[&str] =
        &["kernel/src/arch/", "kernel/src/virt/vmx/entry", "kernel/src/virt/svm/entry", "boot/stub/src/", "tests/guests/src/"];
    let found = violations(&rust(), |source, _, line| {
        let within = |folders: &[&str]| folders.iter().any(|folder| source.path.starts_with(folder));
        let whole = line.contains("global_asm!") || line.contains("naked_asm!");
        let inline = !whole && (line.contains(" asm!(") || line.contains("::asm!("));
        let allowed = if whole { within(WHOLE) } else { within(INLINE) || source.path.starts_with("boot/stub/src/") };
        (whole || inline) && !allowed && !is_comment(line) && others(source)
    });
    none(&found, "assembly belongs into arch::instr, the world switches and the boot entry");
}

#[test]
fn files_are_short() {
    let sources: Vec<_> = rust().into_iter().filter(|source| !source.is_test()).collect();
    let length = |source: &Source| source.text.lines().count();
    for source in sources.iter().filter(|source| length(source) > LONG_FILE) {
        println!("long: {} has {} lines", source.path, length(source));
    }
    let found: Vec<_> = sources.iter().filter(|source| length(source) > LONGEST_FILE).map(|source| source.path.clone()).collect();
    none(&found, "files of more than 600 lines");
}

#[test]
fn citations_have_one_form() {
    let found = violations(&files(&[".rs", ".s", ".md"]), |source, _, line| {
        others(source) && ["SDM ", "APM ", "VIRTIO "].iter().any(|manual| !cited_well(line, manual))
    });
    none(&found, "write SDM 3C \"Section Title\", APM 2 \"Section Title\" or VIRTIO 1.2 §5.2");
}

/// Checks the text behind each `manual` in `line`; a manual that is only mentioned has no number
/// behind it.
fn cited_well(line: &str, manual: &str) -> bool {
    line.split(manual).skip(1).all(|rest| {
        if !rest.starts_with(|c: char| c.is_ascii_digit()) {
            return true;
        }
        let (_volume, section) = rest.split_once(' ').unwrap_or((rest, ""));
        match manual {
            "VIRTIO " => section.starts_with(['§', '"']) || rest.starts_with("1.2,") || rest.starts_with("1.2 ("),
            // The title may begin on the next line.
            _ => section.is_empty() || section.starts_with('"') || section.starts_with("§"),
        }
    })
}

/// The subject of a sentence is a thing. These words are the sign that it is not; their number may
/// only fall.
#[test]
fn comments_speak_of_things() {
    const WORDS: &[&str] = &["somebody", "nobody", "whoever", "anybody", "one that", "what is", "who is"];
    const LEFT: usize = 1;
    let is_word = |text: &str, at: usize, len: usize| {
        let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !letter(text[..at].chars().next_back()) && !letter(text[at + len..].chars().next())
    };
    let has = |line: &str, word: &str| line.match_indices(word).any(|(at, _)| is_word(line, at, word.len()));
    let speaks = |line: &str| WORDS.iter().any(|word| has(&line.to_lowercase(), word));
    let all = |source: &Source| source.text.lines().map(str::to_owned).collect::<Vec<_>>();
    let mut found = Vec::new();
    for source in rust().iter().filter(|source| others(source)) {
        let comments = all(source).into_iter().enumerate().filter(|(_, line)| is_comment(line) && speaks(line));
        found.extend(comments.map(|(index, line)| format!("{}:{}: {}", source.path, index + 1, line.trim())));
    }
    assert!(found.len() <= LEFT, "{} comments, {LEFT} are left:\n  {}", found.len(), found.join("\n  "));
}

#[test]
fn nothing_panics_by_unwrap_outside_tests() {
    let found = violations(&rust(), |source, _, line| {
        let product = source.path.starts_with("kernel/src") || source.path.starts_with("boot/");
        let words = [".unwrap()", "todo!(", "unimplemented!(", "dbg!("];
        product && !source.is_test() && !is_comment(line) && words.iter().any(|word| line.contains(word))
    });
    let found: Vec<_> = found.into_iter().filter(|place| !place.contains("build.rs")).collect();
    none(&found, "unwrap, todo and dbg outside tests");
}

#[test]
fn no_path_of_one_machine_is_written_down() {
    let found = violations(&files(&[".rs", ".s", ".sh", ".py", ".md", ".toml", ".ld"]), |source, _, line| {
        others(source) && ["/work/", "/home/", "/root/", "/Users/"].iter().any(|path| line.contains(path))
    });
    none(&found, "paths that exist on one machine only");
}

#[test]
fn modules_begin_with_their_purpose() {
    let sources = rust().into_iter().filter(|source| source.path.starts_with("kernel/src") || source.path.starts_with("boot/"));
    let lacking = |source: &Source| !source.is_test() && !source.text.lines().take(8).any(|line| line.starts_with("//!"));
    let found: Vec<_> = sources.filter(lacking).map(|source| source.path).collect();
    none(&found, "a module begins with a //! comment");
}

#[test]
fn the_readme_shows_the_example_that_it_names() {
    let text = |path: &str| std::fs::read_to_string(boot::paths::workspace().join(path)).expect("the file is there");
    let (readme, example) = (text("README.md"), text("examples/two.toml"));
    let shown = &example[example.find("[pool]").expect("a pool")..];
    assert!(readme.contains(&format!("```toml\n{shown}```")), "README.md shows another examples/two.toml");
    boot::demo::record::replace(&readme, "").expect("the README has room for a run");
}

#[test]
fn every_test_is_compiled_and_run_somewhere() {
    // The module contains such lines in the texts of its own tests.
    let sources: Vec<_> = rust();
    none(&unseen_tests(&sources, ROOTS), "tests that `cargo test` never compiles");
}

#[test]
fn messages_are_no_debug_text() {
    let found = violations(&files(&[".rs"]), |source, _, line| {
        let rooms = ["node", "partition", "crash", "host", "storage", "task", "paging", "space"];
        let kernels = source.path.strip_prefix("kernel/src/").and_then(|path| path.split_once('/'));
        let shown = kernels.is_some_and(|(room, _)| rooms.contains(&room)) || source.path.starts_with("boot/src/");
        let debug = line.contains(":?}") || line.contains(":#?}") || line.contains(":x?}");
        // An assertion is for developers. So is the transcript's copy of an emulator's command.
        let ours = ["assert", "panic!", "expect(", "unreachable!", "join(COMMAND)"].iter().any(|word| line.contains(word));
        debug && !ours && !is_comment(line) && !source.is_test() && shown
    });
    none(&found, "what people read is written for them: Display, not Debug");
}

#[test]
fn rooms_use_only_those_below() {
    let sources = rust();
    none(&rooms::homeless(&sources, ROOMS), "files of the kernel in no room of the list");
    let arrows = rooms::arrows(&sources);
    let shown = |arrows: Vec<&rooms::Arrow>| arrows.into_iter().map(ToString::to_string).collect::<Vec<_>>();
    none(&shown(rooms::upward(&arrows, ROOMS)), "a file uses a room above its own: move what it uses down");
    none(&shown(rooms::circles(&arrows)), "files of different rooms use each other in a circle");
    assert!(arrows.len() > 1000, "the paths of the kernel's files are read");
}

#[test]
fn the_drawing_of_the_layers_shows_the_rooms() {
    let path = boot::paths::workspace().join("docs/architecture.md");
    let text = std::fs::read_to_string(path).expect("the file is there");
    assert_eq!(rooms::drawn(&text), ROOMS, "docs/architecture.md, section Layers");
}
