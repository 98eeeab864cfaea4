//! Holds the pages that name tests, and scenes of chaos, to those that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Adds the names of all functions in the sources below a folder.
fn functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            functions(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            let defined = text.split("fn ").skip(1);
            let name = |rest: &str| rest.split(['(', '<']).next().map(str::to_owned);
            names.extend(defined.filter_map(name));
        }
    }
}

/// The pages that say which test holds what, with how many they name at least.
const PAGES: [(&str, usize); 2] = [
    ("docs/guarantees.md", 60),
    ("docs/decisions/0702-bugs-of-others.md", 40),
];

#[test]
fn every_test_that_a_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut names = BTreeSet::new();
    for folder in ["materializer", "migrations", "sinks", "tests"] {
        functions(&root.join(folder), &mut names);
    }
    for (page, least) in PAGES {
        let text = fs::read_to_string(root.join(page)).expect("the page");
        let tests: Vec<&str> = quoted(&text)
            .filter(|word| word.matches('_').count() >= 3)
            .collect();
        assert!(tests.len() > least, "{page} names {} tests", tests.len());
        let missing: Vec<&&str> = tests
            .iter()
            .filter(|test| !names.contains(**test))
            .collect();
        assert!(missing.is_empty(), "{page}: {missing:?}");
    }
}

/// Returns what stands between back quotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_faults_that_are_said_to_be_played_are_the_scenes_of_chaos() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("docs/guarantees.md")).expect("the page");
    let (_, table) = page
        .split_once("\n## Faults that are played\n")
        .expect("the chapter");
    let table = table.lines().skip_while(|line| !line.starts_with('|'));
    let table: String = table.take_while(|line| line.starts_with('|')).collect();
    let said: BTreeSet<&str> = quoted(&table).collect();
    let mut sources = String::new();
    for entry in fs::read_dir(root.join("tests/chaos/src/scenes")).expect("a folder") {
        sources += &fs::read_to_string(entry.expect("an entry").path()).expect("a source");
    }
    let named = sources.split("        name: \"").skip(1);
    let scenes: BTreeSet<&str> = named.filter_map(|rest| rest.split('"').next()).collect();
    assert!(scenes.len() > 40, "{scenes:?}");
    assert_eq!(said, scenes);
}
