//! The shape of the crate: who may import whom, and that every setting says what
//! it does.

mod imports;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use self::imports::{check, module_of, test_files};

#[test]
fn modules_import_only_what_they_may() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut checked = BTreeSet::new();
    let mut breaches = Vec::new();
    let mut tests = BTreeSet::new();
    let files = rust_files(&source);
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        tests.extend(test_files(&text, &module_of(&source, file)));
    }
    for file in &files {
        let module = module_of(&source, file);
        let in_test = tests.iter().any(|test| module.starts_with(test));
        let text = fs::read_to_string(file).unwrap();
        let shown = file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
        breaches.extend(
            check(&text, &module, in_test)
                .into_iter()
                .map(|breach| format!("{}:{breach}", shown.display())),
        );
        checked.extend(module.first().cloned());
    }
    assert!(checked.contains("model") && checked.contains("app"));
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

#[test]
fn every_setting_says_what_it_does() {
    let text = include_str!("../../config/default.toml");
    assert_eq!(undocumented(text), [""; 0]);
    let table: toml::Table = text.parse().unwrap();
    assert_eq!(settings(text).count(), leaves(&table), "a key was not seen");
}

#[test]
fn files_that_the_documents_name_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = 0;
    for document in ["SECURITY.md", "ARCHITECTURE.md", "README.md"] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        for word in text.split('`') {
            let is_path = ["src/", "tests/", "docs/", "fuzz/", "config/", "benches/"];
            if is_path.iter().any(|top| word.starts_with(top)) && !word.contains([' ', '{', '*']) {
                named += 1;
                assert!(root.join(word).exists(), "{document} names {word}");
            }
        }
    }
    assert!(named > 20, "the search finds nothing");
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The line of every setting, with the line above it.
fn settings(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_key = |line: &str| {
        let name = line.split_once(" = ").map(|(name, _)| name);
        name.is_some_and(|n| {
            n.bytes()
                .all(|b| b.is_ascii_lowercase() || b"_0123456789".contains(&b))
        })
    };
    let pairs = text.lines().zip(text.lines().skip(1));
    pairs.filter(move |(_, line)| is_key(line) || line.starts_with('['))
}

fn undocumented(text: &str) -> Vec<&str> {
    settings(text)
        .filter(|(above, _)| {
            above.trim_start_matches('#').trim().is_empty() || !above.starts_with('#')
        })
        .map(|(_, line)| line)
        .collect()
}

/// Keys and table headers.
fn leaves(table: &toml::Table) -> usize {
    let count = |value: &toml::Value| value.as_table().map_or(0, leaves);
    table.values().map(|value| 1 + count(value)).sum()
}

mod tests {
    use super::*;

    #[test]
    fn a_setting_without_a_comment_is_found() {
        let text = "# s\n[a]\n# one\nx = 1\ny = 2\n\n[b]\n#\nz = [\n    1,\n]\n";
        assert_eq!(undocumented(text), ["y = 2", "[b]", "z = ["]);
        assert_eq!(settings(text).count(), leaves(&text.parse().unwrap()));
    }
}
