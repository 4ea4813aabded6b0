//! The house rules that a machine can check. Each test lists every violation as `file:line: text`.

use std::collections::BTreeMap;
use tests::markdown;
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
fn violations(
    sources: &[Source],
    wrong: impl Fn(&Source, &[(usize, &str)], &str) -> bool,
) -> Vec<String> {
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
        opens
            && !line.contains("UNSAFETY:")
            && !before.iter().any(|(_, line)| line.contains("UNSAFETY:"))
    });
    none(&found, "expect(unsafe_code) needs an UNSAFETY note above it");
}

/// Returns the attributes, each as one line.
fn attributes(lines: &[(usize, &str)]) -> Vec<String> {
    let starts = |line: &str| line.starts_with("#[") || line.starts_with("#![");
    let mut found: Vec<String> = Vec::new();
    let mut is_open = false;
    for (_, line) in lines {
        let line = line.trim();
        if is_open {
            found.last_mut().expect("an open attribute").push_str(line);
        } else if starts(line) {
            found.push(line.to_owned());
        } else {
            continue;
        }
        // The end of a long attribute stands alone.
        is_open = if is_open { line != ")]" } else { line.ends_with('(') };
    }
    found
}

/// An expectation that no longer comes true is a warning of the compiler; an allowance stays.
#[test]
fn lints_are_expected_with_a_reason() {
    let mut found = Vec::new();
    for source in rust().iter().filter(|source| others(source)) {
        for attribute in attributes(&source.lines()) {
            let has_reason =
                attribute.contains("reason = \"") || attribute.contains("expect(unsafe_code)");
            if attribute.contains("allow(") || attribute.contains("expect(") && !has_reason {
                found.push(format!("{}: {attribute}", source.path));
            }
        }
    }
    none(
        &found,
        "write #[expect(lint, reason = \"…\")], or expect(unsafe_code) under an UNSAFETY note",
    );
}

#[test]
fn headings_of_documentation_stand_alone() {
    let found = violations(&rust(), |source, _, line| {
        let text = line.trim_start().strip_prefix("/// # ");
        others(source)
            && text.is_some_and(|text| {
                ["Errors ", "Panics ", "Safety "].iter().any(|word| text.starts_with(word))
            })
    });
    none(&found, "the text begins on the line below the heading");
}

#[test]
fn unsafe_operations_name_their_guarantor() {
    let found = violations(&rust(), |source, before, line| {
        let operation =
            ["unsafe {", "unsafe impl", "#[unsafe("].iter().any(|word| line.contains(word));
        let noted = |text: &str| text.contains("SAFETY:") || text.contains("# Safety");
        operation
            && others(source)
            && !is_comment(line)
            && !noted(line)
            && !before.iter().any(|(_, text)| noted(text))
    });
    none(&found, "unsafe needs a SAFETY note above it");
}

#[test]
fn inline_assembly_is_where_it_may_be() {
    const INLINE: &[&str] = &["kernel/src/arch/instr/", "tests/guests/src/instr.rs"];
    const WHOLE: &[&str] = &[
        "kernel/src/arch/",
        "kernel/src/virt/vmx/entry",
        "kernel/src/virt/svm/entry",
        "boot/stub/src/",
        "tests/guests/src/",
    ];
    let found = violations(&rust(), |source, _, line| {
        let within =
            |folders: &[&str]| folders.iter().any(|folder| source.path.starts_with(folder));
        let whole = line.contains("global_asm!") || line.contains("naked_asm!");
        let inline = !whole && (line.contains(" asm!(") || line.contains("::asm!("));
        let allowed = if whole {
            within(WHOLE)
        } else {
            within(INLINE) || source.path.starts_with("boot/stub/src/")
        };
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
    let found: Vec<_> = sources
        .iter()
        .filter(|source| length(source) > LONGEST_FILE)
        .map(|source| source.path.clone())
        .collect();
    none(&found, "files of more than 600 lines");
}

/// Drawings and tables of documentation may be wider: they cannot be broken.
#[test]
fn lines_are_short() {
    let mut found = Vec::new();
    for source in rust() {
        let mut is_drawing = false;
        for (index, line) in source.text.lines().enumerate() {
            let text = line.trim_start().trim_start_matches(['/', '!']).trim_start();
            is_drawing = is_comment(line) && (is_drawing != text.starts_with("```"));
            let may_be_wide = is_comment(line) && (is_drawing || text.starts_with('|'));
            if !may_be_wide && line.chars().count() > 100 {
                found.push(format!("{}:{}: {line}", source.path, index + 1));
            }
        }
    }
    none(&found, "a line has at most 100 columns");
}

/// A search, a compiler's message, a backtrace and a reviewer see a name without its module.
#[test]
fn type_names_are_unique_within_their_crate() {
    let sources = rust();
    let crates: Vec<&str> =
        sources.iter().filter_map(|s| s.path.split_once("/src/")).map(|(name, _)| name).collect();
    let mut places: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for source in &sources {
        let owner = crates
            .iter()
            .filter(|name| source.path.starts_with(&format!("{name}/")))
            .max_by_key(|name| name.len());
        for name in source.text.lines().filter_map(type_name) {
            places.entry((owner.unwrap_or(&""), name)).or_default().push(&source.path);
        }
    }
    let shared: Vec<String> = places
        .iter()
        .filter(|(_, paths)| paths.len() > 1)
        .map(|((_, name), paths)| format!("{name}: {}", paths.join(", ")))
        .collect();
    none(&shared, "a type's name is unique within its crate");
}

/// Returns the name of the type that a line defines.
fn type_name(line: &str) -> Option<&str> {
    let text = line.trim_start();
    let is_alias = text.starts_with("type ");
    // An indented alias without `pub` is a trait's.
    if is_alias && text.len() != line.len() {
        return None;
    }
    let text = text.strip_prefix("pub").map_or(text, |rest| match rest.strip_prefix('(') {
        Some(scope) => scope.split_once(')').map_or("", |(_, rest)| rest).trim_start(),
        None => rest.trim_start(),
    });
    let text = text.strip_prefix("unsafe ").unwrap_or(text);
    let (_, rest) = ["struct ", "enum ", "trait ", "type ", "union "]
        .iter()
        .find_map(|word| text.split_once(word).filter(|(before, _)| before.is_empty()))?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    (end > 0).then_some(&rest[..end])
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
            "VIRTIO " => {
                section.starts_with(['§', '"'])
                    || rest.starts_with("1.2,")
                    || rest.starts_with("1.2 (")
            }
            // The title may begin on the next line.
            _ => section.is_empty() || section.starts_with('"') || section.starts_with("§"),
        }
    })
}

/// The subject of a sentence is a thing. These words are the sign that it is not; their number may
/// only fall.
#[test]
fn comments_speak_of_things() {
    const WORDS: &[&str] =
        &["somebody", "nobody", "whoever", "anybody", "one that", "what is", "who is"];
    const LEFT: usize = 1;
    let is_word = |text: &str, at: usize, len: usize| {
        let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !letter(text[..at].chars().next_back()) && !letter(text[at + len..].chars().next())
    };
    let has = |line: &str, word: &str| {
        line.match_indices(word).any(|(at, _)| is_word(line, at, word.len()))
    };
    let speaks = |line: &str| WORDS.iter().any(|word| has(&line.to_lowercase(), word));
    let all = |source: &Source| source.text.lines().map(str::to_owned).collect::<Vec<_>>();
    let mut found = Vec::new();
    for source in rust().iter().filter(|source| others(source)) {
        let comments = all(source)
            .into_iter()
            .enumerate()
            .filter(|(_, line)| is_comment(line) && speaks(line));
        found.extend(
            comments.map(|(index, line)| format!("{}:{}: {}", source.path, index + 1, line.trim())),
        );
    }
    assert!(
        found.len() <= LEFT,
        "{} comments, {LEFT} are left:\n  {}",
        found.len(),
        found.join("\n  ")
    );
}

#[test]
fn nothing_panics_by_unwrap_outside_tests() {
    let found = violations(&rust(), |source, _, line| {
        let product = source.path.starts_with("kernel/src") || source.path.starts_with("boot/");
        let words = [".unwrap()", "todo!(", "unimplemented!(", "dbg!("];
        product
            && !source.is_test()
            && !is_comment(line)
            && words.iter().any(|word| line.contains(word))
    });
    let found: Vec<_> = found.into_iter().filter(|place| !place.contains("build.rs")).collect();
    none(&found, "unwrap, todo and dbg outside tests");
}

#[test]
fn no_path_of_one_machine_is_written_down() {
    let found = violations(
        &files(&[".rs", ".s", ".sh", ".py", ".md", ".toml", ".ld"]),
        |source, _, line| {
            others(source)
                && ["/work/", "/home/", "/root/", "/Users/"].iter().any(|path| line.contains(path))
        },
    );
    none(&found, "paths that exist on one machine only");
}

#[test]
fn modules_begin_with_their_purpose() {
    let sources = rust()
        .into_iter()
        .filter(|source| source.path.starts_with("kernel/src") || source.path.starts_with("boot/"));
    let lacking = |source: &Source| {
        !source.is_test() && !source.text.lines().take(8).any(|line| line.starts_with("//!"))
    };
    let found: Vec<_> = sources.filter(lacking).map(|source| source.path).collect();
    none(&found, "a module begins with a //! comment");
}

#[test]
fn the_readme_shows_the_example_that_it_names() {
    let text = |path: &str| {
        std::fs::read_to_string(boot::paths::workspace().join(path)).expect("the file is there")
    };
    let (readme, example) = (text("README.md"), text("examples/two.toml"));
    let shown = &example[example.find("[pool]").expect("a pool")..];
    assert!(
        readme.contains(&format!("```toml\n{shown}```")),
        "README.md shows another examples/two.toml"
    );
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
        let shown = kernels.is_some_and(|(room, _)| rooms.contains(&room))
            || source.path.starts_with("boot/src/");
        let debug = line.contains(":?}") || line.contains(":#?}") || line.contains(":x?}");
        // An assertion is for developers. So is the transcript's copy of an emulator's command.
        let ours = ["assert", "panic!", "expect(", "unreachable!", "join(COMMAND)"]
            .iter()
            .any(|word| line.contains(word));
        debug && !ours && !is_comment(line) && !source.is_test() && shown
    });
    none(&found, "what people read is written for them: Display, not Debug");
}

#[test]
fn markdown_has_one_sentence_a_line() {
    let all = files(&[".md"]);
    let found: Vec<_> = all
        .iter()
        .flat_map(|file| {
            let line = |number| format!("{}:{number}", file.path);
            markdown::mixed_lines(&file.text).into_iter().map(line)
        })
        .collect();
    none(&found, "a line of Markdown has one sentence, and a sentence one line");
    assert!(all.len() > 50, "the pages are read");
}

const CIRCLE: &str =
    "files use each other in a circle: move the data that both use into a file below them";

#[test]
fn files_of_the_other_crates_use_each_other_in_no_circle() {
    let sources = rust();
    for folder in ["boot/src/", "kernel/cluster/src/", "boot/stub/src/"] {
        let arrows = rooms::arrows(&sources, folder);
        let found: Vec<_> =
            rooms::circles(&arrows).into_iter().map(|arrow| format!("{folder}: {arrow}")).collect();
        none(&found, CIRCLE);
        assert!(!arrows.is_empty(), "the paths of {folder} are read");
    }
}

#[test]
fn rooms_use_only_those_below() {
    let sources = rust();
    none(&rooms::homeless(&sources, ROOMS), "files of the kernel in no room of the list");
    let arrows = rooms::arrows(&sources, rooms::KERNEL);
    let shown = |arrows: Vec<&rooms::Arrow>| {
        arrows.into_iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    none(
        &shown(rooms::upward(&arrows, ROOMS)),
        "a file uses a room above its own: move what it uses down",
    );
    none(&shown(rooms::circles(&arrows)), CIRCLE);
    assert!(arrows.len() > 1000, "the paths of the kernel's files are read");
}

#[test]
fn the_drawing_of_the_layers_shows_the_rooms() {
    let path = boot::paths::workspace().join("docs/architecture.md");
    let text = std::fs::read_to_string(path).expect("the file is there");
    assert_eq!(rooms::drawn(&text), ROOMS, "docs/architecture.md, section Layers");
}
