//! The rooms of the kernel, and which file of a crate uses which, by the paths in their texts.
//!
//! A room is a module of the crate's root, with all files in it. Code of unit tests uses rooms as
//! it likes; the rest uses its own room and those below.

use crate::modules::{for_tests, product};
use crate::source::Source;
use std::collections::{BTreeMap, BTreeSet};

/// The kernel's rooms, from top to bottom. `docs/architecture.md` draws them.
pub const ROOMS: &[&str] = &[
    "init",
    "node",
    "partition",
    "crash",
    "host",
    "members",
    "storage",
    "task",
    "paging",
    "pool",
    "dump",
    "console",
    "images",
    "space",
    "sched",
    "block",
    "pci",
    "mm",
    "virt",
    "log",
    "sync",
    "arch",
    "size",
    "config",
    "archive",
    "addr",
    "partition_id",
    "time",
];

/// The folder of the kernel's files.
pub const KERNEL: &str = "kernel/src/";
/// Files of the root, which are in no room.
const ROOT: &[&str] = &["lib.rs", "main.rs"];

/// A path in one file that leads to another file; both are named from their crate's folder.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Arrow {
    /// The file that contains the path.
    pub from: String,
    /// The file that the path leads to.
    pub to: String,
    /// The path as it is written, without blanks.
    pub path: String,
}

impl std::fmt::Display for Arrow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} uses {} ({})", self.from, self.to, self.path)
    }
}

/// Returns the room of a file.
pub fn room(file: &str) -> &str {
    file.split('/').next().unwrap_or(file).trim_end_matches(".rs")
}

/// Returns the arrows between different files of the crate whose root is in `folder`, without those
/// of unit tests.
pub fn arrows(sources: &[Source], folder: &str) -> BTreeSet<Arrow> {
    let root = format!("{folder}lib.rs");
    let product = product(sources, &[&root]);
    let of_crate =
        sources.iter().filter(|source| product.contains(&source.path) && !source.is_test());
    let files: Vec<_> = of_crate
        .filter_map(|source| Some((source.path.strip_prefix(folder)?, code(source))))
        .collect();
    let mut found = BTreeSet::new();
    for (from, code) in &files {
        for path in paths(code) {
            let to = leads_to(from, &path, |file| files.iter().any(|(other, _)| *other == file));
            if let Some(to) = to.filter(|to| to != from) {
                found.insert(Arrow { from: (*from).to_owned(), to, path });
            }
        }
    }
    found
}

/// Returns the files of the kernel that are in no room of `rooms`.
pub fn homeless(sources: &[Source], rooms: &[&str]) -> Vec<String> {
    let files = sources
        .iter()
        .filter_map(|source| source.path.strip_prefix(KERNEL))
        .filter(|file| file.ends_with(".rs"));
    files
        .filter(|file| !ROOT.contains(file) && !rooms.contains(&room(file)))
        .map(str::to_owned)
        .collect()
}

/// Returns the arrows to a room that is above that of the file in `rooms`.
pub fn upward<'a>(arrows: &'a BTreeSet<Arrow>, rooms: &[&str]) -> Vec<&'a Arrow> {
    let height = |file: &str| rooms.iter().position(|name| *name == room(file));
    arrows.iter().filter(|arrow| height(&arrow.to) < height(&arrow.from)).collect()
}

/// Returns the arrows that are part of a circle of files.
pub fn circles(arrows: &BTreeSet<Arrow>) -> Vec<&Arrow> {
    let mut uses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for arrow in arrows {
        uses.entry(&arrow.from).or_default().insert(&arrow.to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        uses.keys().map(|&file| (file, reached_from(&uses, file))).collect();
    let leads_back = |arrow: &&Arrow| {
        reached.get(arrow.to.as_str()).is_some_and(|files| files.contains(arrow.from.as_str()))
    };
    arrows.iter().filter(leads_back).collect()
}

/// Returns all files that arrows lead to from `file`.
fn reached_from<'a>(
    uses: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    file: &'a str,
) -> BTreeSet<&'a str> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![file]);
    while let Some(file) = open.pop() {
        let next = uses.get(file).into_iter().flatten();
        open.extend(next.filter(|next| seen.insert(**next)));
    }
    seen
}

/// Returns the first word of each line of the drawing in the section "Layers" of
/// `docs/architecture.md`.
pub fn drawn(text: &str) -> Vec<&str> {
    let section = text.split_once("\n## Layers\n").map_or("", |(_, section)| section);
    let drawing = section.split("```").nth(1).unwrap_or("");
    drawing.lines().filter_map(|line| line.split_whitespace().next()).collect()
}

/// Returns a file's text without comments and without what only unit tests have.
fn code(source: &Source) -> String {
    let mut code = String::new();
    let (mut skips, mut depth) = (false, 0_usize);
    for (_, line) in source.lines() {
        let line = line.split("//").next().unwrap_or("");
        let text = line.trim();
        if text.starts_with("#[") {
            skips |= for_tests(&text.replace(' ', ""));
        } else if skips {
            let opened = line.matches(['{', '(', '[']).count();
            depth = (depth + opened).saturating_sub(line.matches(['}', ')', ']']).count());
            skips = text.is_empty() || depth > 0 || !text.ends_with([';', '}', ',']);
        } else {
            code.push_str(line);
            code.push('\n');
        }
    }
    code
}

/// Returns all paths in a text that begin with `crate`, `super` or `self`, those of `use`
/// declarations one by one.
fn paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    for first in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(first) {
            if !code[..at].ends_with(is_part) {
                tree("", &code[at..], &mut found);
            }
        }
    }
    found
}

/// Adds the paths of a tree like `a::{b, c::d}` at the start of `text`, each behind `prefix`;
/// returns the text behind the tree.
fn tree<'a>(prefix: &str, text: &'a str, found: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut list) = text.strip_prefix('{') {
        loop {
            list = list.trim_start().trim_start_matches(',').trim_start();
            match list.strip_prefix('}') {
                Some(rest) => return rest,
                None if list.is_empty() => return list,
                None => list = tree(prefix, list, found),
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
    match rest.trim_start().strip_prefix("::") {
        Some(rest)
            if rest
                .trim_start()
                .starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '{') =>
        {
            tree(&path, rest, found)
        }
        _ => {
            found.push(path);
            let is_end = |c: char| c == ',' || c == '}' || c == ';';
            rest.find(is_end).map_or("", |at| &rest[at..])
        }
    }
}

/// Returns the file that a path in the file `from` leads to; `None` for the crate's root.
fn leads_to(from: &str, path: &str, exists: impl Fn(&str) -> bool) -> Option<String> {
    let mut here: Vec<&str> =
        from.trim_end_matches(".rs").split('/').filter(|name| *name != "mod").collect();
    for name in path.split("::") {
        match name {
            "crate" => here.clear(),
            "super" => here.truncate(here.len().saturating_sub(1)),
            "self" => {}
            name => here.push(name),
        }
    }
    while !here.is_empty() {
        let module = here.join("/");
        let file = [format!("{module}.rs"), format!("{module}/mod.rs")]
            .into_iter()
            .find(|file| exists(file));
        if file.is_some() {
            return file;
        }
        here.pop();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree_of(files: &[(&str, &str)]) -> Vec<Source> {
        let source = |(path, text): &(&str, &str)| Source {
            path: format!("{KERNEL}{path}"),
            text: (*text).to_owned(),
        };
        files.iter().map(source).collect()
    }

    fn between(files: &[(&str, &str)]) -> Vec<(String, String)> {
        arrows(&tree_of(files), KERNEL).into_iter().map(|arrow| (arrow.from, arrow.to)).collect()
    }

    #[test]
    fn paths_are_read_one_by_one() {
        let text = "use crate::{a, b::{self, c as d}};\nlet x = crate::e::f(super::g::<u8>(), \
                    $crate::h::I);\nnotcrate::j();";
        let mut found = paths(text);
        found.sort();
        assert_eq!(
            found,
            ["crate::a", "crate::b::c", "crate::b::self", "crate::e::f", "crate::h::I", "super::g"]
        );
    }

    #[test]
    fn paths_lead_to_files() {
        let files = [
            ("lib.rs", "mod a;\npub mod b;\n"),
            ("a/mod.rs", "pub mod c;\nmod d;\nuse self::c::X;\nuse crate::b;\n"),
            ("a/c.rs", "use super::d::Y;\nuse crate::Root;\n"),
            ("a/d.rs", "// crate::b::Z\n"),
            ("b.rs", "fn f() { crate::a::c::g(); }\n"),
        ];
        let expected = [
            ("a/c.rs", "a/d.rs"),
            ("a/mod.rs", "a/c.rs"),
            ("a/mod.rs", "b.rs"),
            ("b.rs", "a/c.rs"),
        ];
        assert_eq!(between(&files), expected.map(|(from, to)| (from.to_owned(), to.to_owned())));
    }

    #[test]
    fn unit_tests_use_what_they_like() {
        let text = "#[cfg(test)]\nmod fake;\n\
             fn f() {\n    #[cfg(test)]\n    crate::b::note(\n        1,\n    );\n    \
             crate::c::run();\n}\n\
             #[cfg(test)]\nmod tests {\n    use crate::b::X;\n}\n";
        let files = [
            ("lib.rs", "mod a;\nmod b;\nmod c;\n"),
            ("a.rs", text),
            ("a/fake.rs", "mod more;\n"),
            ("a/fake/more.rs", "use crate::b::X;\n"),
            ("b.rs", ""),
            ("c.rs", ""),
        ];
        assert_eq!(between(&files), [("a.rs".to_owned(), "c.rs".to_owned())]);
    }

    #[test]
    fn arrows_up_and_circles_are_found() {
        let files = [
            ("lib.rs", "mod top;\nmod low;\n"),
            ("top/mod.rs", "mod one;\nmod two;\n"),
            ("top/one.rs", "use crate::low::X;\nuse super::two::Y;\n"),
            ("top/two.rs", "use super::one::Z;\n"),
            ("low.rs", "use crate::top::two::Y;\n"),
        ];
        let arrows = arrows(&tree_of(&files), KERNEL);
        let shown =
            |arrows: Vec<&Arrow>| arrows.into_iter().map(Arrow::to_string).collect::<Vec<_>>();
        assert_eq!(
            shown(upward(&arrows, &["top", "low"])),
            ["low.rs uses top/two.rs (crate::top::two::Y)"]
        );
        assert_eq!(
            shown(upward(&arrows, &["low", "top"])),
            ["top/one.rs uses low.rs (crate::low::X)"]
        );
        let all = [
            "low.rs uses top/two.rs (crate::top::two::Y)",
            "top/one.rs uses low.rs (crate::low::X)",
            "top/one.rs uses top/two.rs (super::two::Y)",
            "top/two.rs uses top/one.rs (super::one::Z)",
        ];
        assert_eq!(shown(circles(&arrows)), all);
        assert_eq!(homeless(&tree_of(&files), &["top"]), ["low.rs"]);
    }

    #[test]
    fn the_drawing_is_read_line_by_line() {
        let text = "# A\n```\nno\n```\n\n## Layers\n\nText.\n\n```\n top   a\n low   b \
                    top\n```\n\n```\nno\n```\n";
        assert_eq!(drawn(text), ["top", "low"]);
        assert_eq!(drawn("# A\n"), [""; 0]);
    }
}
