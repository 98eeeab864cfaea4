//! The view language: text → definition → compiled view. Pure: no I/O, no clock.
//!
//! [`parse()`] reads YAML and tells all its faults at once; [`compile`] makes a [`View`], which derives
//! mutations from records; [`fingerprint()`] says which definitions give the same data, and [`diff`]
//! why two do not. [`draft()`] writes a first definition from sampled records; [`View::explain`] shows
//! what each expression gives.

mod budget;
mod document;
mod draft;
mod evaluate;
mod explain;
mod expression;
mod extract;
mod faults;
mod fingerprint;
mod functions;
mod json;
mod keys;
mod parse;
mod reader;
mod target;
#[cfg(test)]
mod tests;
mod texts;
mod yaml;

pub use document::{CompileError, View, compile};
pub use draft::{draft, view_name};
pub use explain::{Explanation, Outcome, Step, point_at};
pub use expression::ExpressionFault;
pub use faults::{Fault, Faults};
pub use fingerprint::{Change, Difference, Reason, diff, digest, fingerprint};
pub use functions::{FUNCTIONS, MACROS};
pub use keys::{KEYS, KeySpec};
pub use parse::{declared, parse};
