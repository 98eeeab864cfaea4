//! What a verb says, and to whom: data to standard output, all else to standard error.
//!
//! Text and JSON are two renderings of one value. Nothing is coloured, so nothing is said by colour
//! alone. A closed pipe ends the verb quietly.

use std::fmt::{self, Display};
use std::io::{self, Write};

pub use materializer_migrations::words::{Count, rough as span};
use serde::Serialize;

/// How values are rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// How a verb ended. The number is the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or nothing to do.
    Done,
    /// Failed, or refused for another reason than a gate.
    Failed,
    /// Bad arguments, settings or definition.
    Usage,
    /// A gate does not hold, or a wait timed out.
    NotYet,
    /// A request was sent and nobody answered.
    Unknown,
}

impl Exit {
    /// Returns the process's exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotYet => 3,
            Self::Unknown => 4,
        }
    }
}

/// Why a verb did not do what it was asked for, and what to type next.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened; its chain of causes is printed once, here.
    pub error: anyhow::Error,
    /// The next command, or what to change.
    pub hint: Option<String>,
}

impl Failure {
    /// Makes a failure with a hint.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>, hint: impl Into<String>) -> Self {
        Self {
            exit,
            error: error.into(),
            hint: Some(hint.into()),
        }
    }

    /// Makes a refusal out of a message and a hint.
    pub fn refused(message: impl Display, hint: impl Into<String>) -> Self {
        Self::new(Exit::Failed, anyhow::anyhow!("{message}"), hint)
    }

    /// Makes a failure of arguments, settings or a definition.
    pub fn usage(message: impl Display, hint: impl Into<String>) -> Self {
        Self::new(Exit::Usage, anyhow::anyhow!("{message}"), hint)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            exit: Exit::Failed,
            error: error.into(),
            hint: None,
        }
    }
}

#[derive(Serialize)]
struct FailureJson<'a> {
    error: String,
    hint: Option<&'a str>,
    exit: u8,
}

/// Where a verb says what it has to say.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    format: Format,
}

impl Output {
    /// Makes an output that renders values in a format.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// Returns the format.
    #[must_use]
    pub fn format(self) -> Format {
        self.format
    }

    /// Says a value on standard output: as text, or as one line of JSON.
    ///
    /// # Errors
    /// An [`io::Error`] where standard output is closed.
    pub fn show(self, value: &(impl Display + Serialize)) -> io::Result<()> {
        let line = match self.format {
            Format::Text => value.to_string(),
            Format::Json => serde_json::to_string(value)?,
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{}", line.trim_end())?;
        out.flush()
    }

    /// Says something to people on standard error.
    ///
    /// # Errors
    /// An [`io::Error`] where standard error is closed.
    pub fn note(self, line: impl Display) -> io::Result<()> {
        writeln!(io::stderr().lock(), "{line}")
    }

    /// Says a failure and returns the exit code.
    #[must_use]
    pub fn fail(self, failure: &Failure) -> Exit {
        if is_closed_pipe(&failure.error) {
            return Exit::Done;
        }
        let error = format!("{:#}", failure.error);
        let text = match self.format {
            Format::Text => {
                let mut text = format!("error: {error}");
                if let Some(hint) = &failure.hint {
                    text += &format!("\nhint: {hint}");
                }
                text
            }
            Format::Json => serde_json::to_string(&FailureJson {
                error,
                hint: failure.hint.as_deref(),
                exit: failure.exit.code(),
            })
            .unwrap_or_else(|_| "{}".to_owned()),
        };
        // Nobody is left to tell where standard error is closed; the exit code still does.
        drop(self.note(text));
        failure.exit
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// A number of bytes for people: `10.4 GiB`.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, shift) = match self.0 {
            0..1024 => return f.pad(&format!("{} B", self.0)),
            1024..1_048_576 => ("KiB", 10),
            1_048_576..1_073_741_824 => ("MiB", 20),
            _ => ("GiB", 30),
        };
        // Tenths in integers: no cast to a float that could be off.
        let tenths = (u128::from(self.0) * 10) >> shift;
        f.pad(&format!("{}.{} {unit}", tenths / 10, tenths % 10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_readable() {
        for (bytes, expected) in [(0, "0 B"), (1536, "1.5 KiB"), (11_200_000_000, "10.4 GiB")] {
            assert_eq!(Bytes(bytes).to_string(), expected);
        }
    }
}
