//! A folder of definitions as it is at one moment: what is declared in it, and what is wrong with it.
//!
//! A file at fault takes nothing from the others: a wrong view must not keep another one from going back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use materializer_migrations::Declaration;
use materializer_model::ViewName;
use materializer_view::{declared, digest, fingerprint};

/// What a folder of definitions says.
#[derive(Debug, Default)]
pub(super) struct Folder {
    /// What is declared, with the name of its file.
    pub(super) views: BTreeMap<ViewName, (String, Declaration)>,
    /// What could not be read. While there is something, a view that is missing may be in it.
    pub(super) faults: Vec<String>,
}

/// A text, or why it could not be read.
type Text = Result<String, String>;

/// The texts of a folder's files, by their names, or why the folder could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Files(Result<Vec<(String, Text)>, String>);

impl Files {
    /// Reads every `*.yaml` and `*.yml` of a folder. Hidden files, as those that Kubernetes swaps a mounted
    /// `ConfigMap` by, are passed over.
    pub(super) fn read(folder: &Path) -> Self {
        let unread = |path: &Path, error: &std::io::Error| {
            format!("`definitions`: cannot read `{}`: {error}", path.display())
        };
        let read = |path: PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let text = fs::read_to_string(&path).map_err(|error| unread(&path, &error));
            (name.into_owned(), text)
        };
        let paths = paths(folder).map_err(|error| unread(folder, &error));
        Self(paths.map(|paths| paths.into_iter().map(read).collect()))
    }
}

impl Folder {
    /// Returns what files say.
    pub(super) fn of(files: &Files) -> Self {
        let mut folder = Self::default();
        match &files.0 {
            Ok(files) => files.iter().for_each(|(file, text)| folder.add(file, text)),
            Err(fault) => folder.faults.push(fault.clone()),
        }
        folder
    }

    fn add(&mut self, file: &str, text: &Text) {
        let read = text.as_ref().map_err(Clone::clone).and_then(|text| {
            declared(file, text).map_err(|faults| {
                let (line, what) = (faults.all()[0].line, &faults.all()[0].message);
                format!(
                    "`definitions`: {file}:{line}: {what}; `materializer plan` tells all of its faults"
                )
            })
        });
        let definitions = match read {
            Ok(definitions) => definitions,
            Err(fault) => {
                self.faults.push(fault);
                return;
            }
        };
        for (definition, retire) in definitions {
            let view = definition.view.clone();
            let declaration = Declaration {
                fingerprint: fingerprint(&definition),
                digest: digest(&definition, retire),
                definition,
                retire,
            };
            if let Some((other, _)) = self.views.get(&view) {
                self.faults.push(format!(
                    "`definitions`: view `{view}` is in {other} and in {file}: the first one counts"
                ));
                continue;
            }
            self.views.insert(view, (file.to_owned(), declaration));
        }
    }
}

/// Returns the files of definitions by name.
fn paths(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_hidden = |name: &str| name.starts_with('.');
        let name = path.file_name().and_then(|name| name.to_str());
        let kind = path.extension().and_then(|kind| kind.to_str());
        let is_yaml = matches!(kind, Some("yaml" | "yml"));
        if is_yaml && name.is_some_and(|name| !is_hidden(name)) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
