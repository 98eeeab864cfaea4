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

impl Folder {
    /// Reads every `*.yaml` and `*.yml` of a folder. Hidden files, as those that Kubernetes swaps a mounted
    /// `ConfigMap` by, are passed over.
    pub(super) fn read(path: &Path) -> Self {
        let mut folder = Self::default();
        match files(path) {
            Ok(files) => files.iter().for_each(|file| folder.add(file)),
            Err(error) => {
                let fault = format!("`definitions`: cannot read `{}`: {error}", path.display());
                folder.faults.push(fault);
            }
        }
        folder
    }

    fn add(&mut self, path: &Path) {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let file = file.into_owned();
        let definitions = match fs::read_to_string(path) {
            Ok(text) => declared(&file, &text).map_err(|faults| faults.all()[0].clone()),
            Err(error) => {
                let fault = format!("`definitions`: cannot read `{}`: {error}", path.display());
                self.faults.push(fault);
                return;
            }
        };
        let definitions = match definitions {
            Ok(definitions) => definitions,
            Err(first) => {
                let (line, what) = (first.line, first.message);
                self.faults.push(format!(
                    "`definitions`: {file}:{line}: {what}; `materializer plan` tells all of its faults"
                ));
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
            self.views.insert(view, (file.clone(), declaration));
        }
    }
}

/// Returns the files of definitions by name.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_hidden = |name: &str| name.starts_with('.');
        let name = path.file_name().and_then(|name| name.to_str());
        let kind = path.extension().and_then(|kind| kind.to_str());
        let is_yaml = matches!(kind, Some("yaml" | "yml"));
        if is_yaml && name.is_some_and(|name| !is_hidden(name)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
