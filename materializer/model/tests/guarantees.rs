//! Holds the pages that name tests to tests that exist.

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
        let quoted = text.split('`').skip(1).step_by(2);
        let tests: Vec<&str> = quoted
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
