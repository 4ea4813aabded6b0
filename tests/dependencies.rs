//! What the dependencies may be: their licences, versions and sources, as `deny.toml` says.
//!
//! The same file serves `cargo deny check licenses bans sources`. That tool is no package of
//! Debian, and building it takes longer than all other checks.

use serde_json::Value;
use spdx::{Expression, LicenseReq, ParseMode};
use std::collections::BTreeMap;
use std::process::Command;
use toml::Table;

/// A package of `Cargo.lock` that is not of this workspace.
struct ForeignPackage {
    name: String,
    version: String,
    licence: String,
    source: String,
}

fn rules() -> Table {
    let file = boot::paths::workspace().join("deny.toml");
    std::fs::read_to_string(file).expect("deny.toml is there").parse().expect("deny.toml is TOML")
}

/// Returns `cargo metadata`, of all targets and features in use.
fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(boot::paths::workspace().join("Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo writes JSON")
}

fn foreign(metadata: &Value) -> Vec<ForeignPackage> {
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let text = |package: &Value, key: &str| package[key].as_str().unwrap_or("").to_owned();
    let foreign = packages.iter().filter(|package| !package["source"].is_null());
    let of = |package: &Value| ForeignPackage {
        name: text(package, "name"),
        version: text(package, "version"),
        licence: text(package, "license"),
        source: text(package, "source"),
    };
    foreign.map(of).collect()
}

fn list(rules: &Table, section: &str, key: &str) -> Vec<toml::Value> {
    rules[section][key].as_array().cloned().unwrap_or_default()
}

fn text(value: &toml::Value, key: &str) -> String {
    value.get(key).and_then(toml::Value::as_str).unwrap_or("").to_owned()
}

/// Returns whether a licence's expression can be met by licences of `allowed` alone.
fn is_allowed(licence: &str, allowed: &[String]) -> bool {
    let accepts = |wanted: &LicenseReq| {
        wanted.license.id().is_some_and(|id| allowed.iter().any(|a| a == id.name))
    };
    Expression::parse_mode(licence, ParseMode::LAX)
        .is_ok_and(|expression| expression.evaluate(accepts))
}

/// Returns packages whose licence is not allowed.
fn wrong_licences(packages: &[ForeignPackage], rules: &Table) -> Vec<String> {
    let names = |values: Vec<toml::Value>| -> Vec<String> {
        values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
    };
    let exceptions = list(rules, "licenses", "exceptions");
    let mut found = Vec::new();
    for package in packages {
        let mut allowed = names(list(rules, "licenses", "allow"));
        for exception in exceptions.iter().filter(|e| text(e, "crate") == package.name) {
            allowed.extend(names(exception["allow"].as_array().cloned().unwrap_or_default()));
        }
        if !is_allowed(&package.licence, &allowed) {
            found.push(format!("{} {}: {}", package.name, package.version, package.licence));
        }
    }
    found
}

/// Returns packages of which there are several versions, but for those that may be left out.
fn several_versions(packages: &[ForeignPackage], rules: &Table) -> Vec<String> {
    let skipped = list(rules, "bans", "skip");
    let is_skipped = |package: &ForeignPackage| {
        let exact = format!("{}@{}", package.name, package.version);
        skipped.iter().any(|skip| [&package.name, &exact].contains(&&text(skip, "crate")))
    };
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages.iter().filter(|package| !is_skipped(package)) {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    let several = versions.iter().filter(|(_, versions)| versions.len() > 1);
    several.map(|(name, versions)| format!("{name}: {}", versions.join(", "))).collect()
}

/// Returns packages that come from elsewhere than an allowed registry.
fn wrong_sources(packages: &[ForeignPackage], rules: &Table) -> Vec<String> {
    let allowed = list(rules, "sources", "allow-registry");
    let is_wrong = |package: &&ForeignPackage| {
        let registry = package.source.strip_prefix("registry+").unwrap_or("");
        !allowed.iter().any(|allowed| allowed.as_str() == Some(registry))
    };
    packages.iter().filter(is_wrong).map(|p| format!("{}: {}", p.name, p.source)).collect()
}

/// Returns requirements of the workspace that any version meets.
fn wildcards(metadata: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let ours = package["source"].is_null();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            if ours && dependency["req"] == "*" && dependency["path"].is_null() {
                found.push(format!("{} on {}", package["name"], dependency["name"]));
            }
        }
    }
    found
}

#[test]
fn dependencies_are_as_deny_toml_allows() {
    let (rules, metadata) = (rules(), metadata());
    let packages = foreign(&metadata);
    assert!(packages.len() > 50, "cargo metadata names the dependencies");
    let none: [String; 0] = [];
    assert_eq!(wrong_licences(&packages, &rules), none, "licences");
    assert_eq!(several_versions(&packages, &rules), none, "several versions of a package");
    assert_eq!(wrong_sources(&packages, &rules), none, "sources");
    assert_eq!(wildcards(&metadata), none, "requirements that any version meets");
}

#[test]
fn what_is_not_allowed_is_found() {
    let package = |name: &str, version: &str, licence: &str, source: &str| ForeignPackage {
        name: name.to_owned(),
        version: version.to_owned(),
        licence: licence.to_owned(),
        source: source.to_owned(),
    };
    let index = "registry+https://github.com/rust-lang/crates.io-index";
    let packages = [
        package("a", "1.0.0", "MIT/Apache-2.0", index),
        package("a", "2.0.0", "GPL-3.0-only", index),
        package("ucs2", "0.3.3", "MPL-2.0", index),
        package("b", "1.0.0", "MPL-2.0", "git+https://example.org/b"),
        package("c", "1.0.0", "MIT AND GPL-2.0-only", index),
        package("d", "1.0.0", "", "registry+https://example.org/index"),
    ];
    let rules = rules();
    let names = |found: Vec<String>| -> Vec<String> {
        found.iter().map(|text| text.chars().take(1).collect()).collect()
    };
    assert_eq!(names(wrong_licences(&packages, &rules)), ["a", "b", "c", "d"]);
    assert_eq!(several_versions(&packages, &rules), ["a: 1.0.0, 2.0.0"]);
    assert_eq!(names(wrong_sources(&packages, &rules)), ["b", "d"]);
}
