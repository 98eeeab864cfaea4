//! The definitions that a verb is about: files in, definitions or all their faults out.

use std::path::PathBuf;

use materializer_model::{Fingerprint, ViewDefinition};
use materializer_view::{fingerprint, parse};

use super::context::Context;
use crate::output::{Failure, Format};

/// A definition and where it was read.
#[derive(Debug)]
pub(super) struct Defined {
    pub(super) file: PathBuf,
    pub(super) text: String,
    pub(super) definition: ViewDefinition,
    pub(super) fingerprint: Fingerprint,
}

/// Reads definitions from files. The faults of all files are told before anything else is done.
pub(super) fn read(context: &Context, files: &[PathBuf]) -> Result<Vec<Defined>, Failure> {
    let mut all: Vec<Defined> = Vec::new();
    let mut faults = 0;
    for file in files {
        let text = std::fs::read_to_string(file).map_err(|error| {
            Failure::usage(
                format!("cannot read `{}`: {error}", file.display()),
                "name the files of views, as in `views/products.yaml`",
            )
        })?;
        match parse(&file.display().to_string(), &text) {
            Ok(definitions) => all.extend(definitions.into_iter().map(|definition| Defined {
                file: file.clone(),
                text: text.clone(),
                fingerprint: fingerprint(&definition),
                definition,
            })),
            Err(found) => {
                faults += found.all().len();
                match context.output.format() {
                    Format::Text => context.output.note(format!("{found}\n"))?,
                    Format::Json => {
                        for fault in found.all() {
                            context.output.note(serde_json::to_string(fault)?)?;
                        }
                    }
                }
            }
        }
    }
    if faults > 0 {
        let plural = if faults == 1 { "fault" } else { "faults" };
        return Err(Failure::usage(
            format!("the definitions have {faults} {plural}"),
            "every key is explained in docs/views.md",
        ));
    }
    all.sort_by(|a, b| a.definition.view.cmp(&b.definition.view));
    for pair in all.windows(2) {
        if let [one, other] = pair
            && one.definition.view == other.definition.view
        {
            let name = &one.definition.view;
            return Err(Failure::usage(
                format!(
                    "view `{name}` is defined in `{}` and in `{}`",
                    one.file.display(),
                    other.file.display()
                ),
                "keep one of them",
            ));
        }
    }
    Ok(all)
}
