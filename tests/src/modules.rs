//! The files of the tree that the host's test runs compile: the modules of each crate root,
//! according to their declarations.
//!
//! A file that exists only on the bare machine (`cfg(target_os = "none")`), or that no module
//! declares, is not among them, and a `#[test]` in it never runs. Code under `cfg(loom)` is run by
//! `.ci/run`.

use crate::source::Source;
use std::collections::BTreeSet;

/// Crate roots whose tests `cargo test` runs: each package's library, and the targets with
/// libtest's harness.
pub const ROOTS: &[&str] = &[
    "kernel/src/lib.rs",
    "kernel/cluster/src/lib.rs",
    "boot/src/lib.rs",
    "boot/stub/src/lib.rs",
    "boot/worker/src/lib.rs",
    "tests/src/lib.rs",
    "tests/dependencies.rs",
    "tests/house_rules.rs",
];

/// Attributes that exclude a module from the host.
const BARE: &[&str] = &["target_os=\"none\"", "feature="];

/// Returns the paths of all files that belong to `roots` on the host.
pub fn compiled(sources: &[Source], roots: &[&str]) -> BTreeSet<String> {
    reached(sources, roots, is_bare)
}

/// Returns the paths of all files that belong to `roots`, also on the bare machine, without those
/// that only unit tests have.
pub fn product(sources: &[Source], roots: &[&str]) -> BTreeSet<String> {
    reached(sources, roots, |attributes| attributes.iter().any(|line| for_tests(line)))
}

/// Returns whether an attribute, without blanks, leaves its item to unit tests.
pub fn for_tests(attribute: &str) -> bool {
    attribute.starts_with("#[cfg(test)") || attribute.starts_with("#[cfg(all(test,")
}

/// Returns the files of `roots`, without modules whose attributes `leaves` refuses.
fn reached(sources: &[Source], roots: &[&str], leaves: fn(&[String]) -> bool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open: Vec<_> = roots.iter().map(|root| (*root).to_owned()).collect();
    while let Some(path) = open.pop() {
        let Some(source) = sources.iter().find(|source| source.path == path) else { continue };
        if found.insert(path) {
            open.extend(children(source, sources, leaves));
        }
    }
    found
}

/// Returns the lines with a `#[test]` that no host run compiles.
pub fn unseen_tests(sources: &[Source], roots: &[&str]) -> Vec<String> {
    let compiled = compiled(sources, roots);
    let mut unseen = Vec::new();
    for source in sources {
        let bare = bare_lines(&source.text);
        for (number, line) in (1..).zip(source.text.lines()) {
            let here = compiled.contains(&source.path) && !bare.contains(&number);
            if line.trim() == "#[test]" && !here {
                unseen.push(format!("{}:{number}", source.path));
            }
        }
    }
    unseen
}

fn children(source: &Source, sources: &[Source], leaves: fn(&[String]) -> bool) -> Vec<String> {
    let (folder, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let own = match file {
        "lib.rs" | "main.rs" | "mod.rs" | "house_rules.rs" => folder.to_owned(),
        _ => source.path.trim_end_matches(".rs").to_owned(),
    };
    let mut found = Vec::new();
    for (attributes, name) in declarations(&source.text) {
        if leaves(&attributes) {
            continue;
        }
        let named =
            attributes.iter().find_map(|line| line.strip_prefix("#[path=\"")?.strip_suffix("\"]"));
        let places = match named {
            Some(file) => vec![format!("{folder}/{file}")],
            None => vec![format!("{own}/{name}.rs"), format!("{own}/{name}/mod.rs")],
        };
        found.extend(
            places.into_iter().filter(|place| sources.iter().any(|source| source.path == *place)),
        );
    }
    found
}

/// Returns the modules in other files that a text declares, each with its attributes, without
/// blanks.
fn declarations(text: &str) -> Vec<(Vec<String>, String)> {
    let mut found = Vec::new();
    let mut attributes = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            attributes.push(line.replace(' ', ""));
        } else if let Some(name) = module(line).and_then(|rest| rest.strip_suffix(';')) {
            found.push((std::mem::take(&mut attributes), name.to_owned()));
        } else if !line.starts_with("//") {
            attributes.clear();
        }
    }
    found
}

/// Returns the text behind `mod` in a declaration.
fn module(line: &str) -> Option<&str> {
    let visible = line
        .strip_prefix("pub")
        .map_or(line, |rest| rest.trim_start_matches(|c| c != ' ').trim_start());
    visible.strip_prefix("mod ")
}

/// Returns the numbers of the lines within module blocks that the host does not have.
fn bare_lines(text: &str) -> BTreeSet<usize> {
    let (mut found, mut attributes, mut depth) = (BTreeSet::new(), Vec::new(), 0_usize);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        let opens = module(line).is_some_and(|rest| rest.ends_with('{')) && is_bare(&attributes);
        if depth > 0 || opens {
            depth = (depth + line.matches('{').count()).saturating_sub(line.matches('}').count());
            found.insert(number);
        }
        if line.starts_with("#[") {
            attributes.push(line.replace(' ', ""));
        } else {
            attributes.clear();
        }
    }
    found
}

/// Returns whether only the bare machine has a module with these attributes; `not(...)` is for the
/// host.
fn is_bare(attributes: &[String]) -> bool {
    attributes.iter().any(|line| {
        line.starts_with("#[cfg(")
            && !line.contains("not(")
            && BARE.iter().any(|word| line.contains(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_test_in_a_module_of_the_bare_machine_is_unseen() {
        let tree = [
            source(
                "k/src/lib.rs",
                "pub mod a;\n#[cfg(target_os = \"none\")]\npub mod node;\n#[cfg(all(test, \
                 loom))]\nmod m;\n",
            ),
            source("k/src/a.rs", "mod inner;\n#[cfg(test)]\nmod tests;\n"),
            source("k/src/a/inner.rs", "#[test]\nfn runs() {}\n"),
            source("k/src/a/tests.rs", "#[test]\nfn runs() {}\n"),
            source("k/src/m.rs", "#[test]\nfn runs_under_loom() {}\n"),
            source("k/src/node/mod.rs", "pub mod task;\n"),
            source("k/src/node/task.rs", "fn x() {}\n    #[test]\n    fn never_runs() {}\n"),
            source("k/src/forgotten.rs", "#[test]\nfn never_runs() {}\n"),
        ];
        assert_eq!(
            unseen_tests(&tree, &["k/src/lib.rs"]),
            ["k/src/node/task.rs:2", "k/src/forgotten.rs:1"]
        );
    }

    #[test]
    fn blocks_paths_and_visibility_are_understood() {
        let bare = "#[cfg(target_os = \"none\")]\nmod bare {\n    fn f() {}\n    #[test]\n    fn \
                    never() {}\n}\n#[test]\nfn runs() {}\n";
        let tree = [
            source(
                "k/src/lib.rs",
                "pub(crate) mod a;\n#[cfg(test)]\n#[path = \"b_tests.rs\"]\nmod tests;\n",
            ),
            source("k/src/a/mod.rs", bare),
            source("k/src/b_tests.rs", "#[test]\nfn runs() {}\n"),
        ];
        assert_eq!(unseen_tests(&tree, &["k/src/lib.rs"]), ["k/src/a/mod.rs:4"]);
    }
}
