//! What one evaluation of an expression may cost: a few words of a record, or of a view, could otherwise keep a
//! worker busy for years, or take all of its memory.
//!
//! Counted is what was looked at and made, never time: the same record costs the same everywhere. The count is
//! of this thread, since the functions of CEL are given their arguments and nothing else.

use std::cell::Cell;

use cel::ExecutionError;
use cel::common::types::{CelBytes, CelList, CelMap, CelString};
use cel::common::value::Val;

/// The bytes that an evaluation may make by `+`, `replace`, `join` and in the results of macros.
const BYTES_MAX: usize = 16 << 20;
/// The items that its macros may look at.
const ITEMS_MAX: usize = 1 << 20;
/// What looking at an item, or making one, costs.
const ITEM: usize = BYTES_MAX / ITEMS_MAX;

thread_local! {
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

/// Begins an evaluation.
pub(crate) fn begin() {
    LEFT.set(BYTES_MAX);
}

/// Counts the items that a macro is about to look at.
///
/// # Errors
/// Where they are more than are left.
pub(crate) fn look_at(items: usize) -> Result<(), ExecutionError> {
    make_bytes(items.saturating_mul(ITEM))
}

/// Counts a value that was made.
///
/// # Errors
/// Where it is more than is left.
pub(crate) fn make(value: &dyn Val) -> Result<(), ExecutionError> {
    if let Some(text) = value.downcast_ref::<CelString<'_>>() {
        return make_bytes(text.inner().len());
    }
    if let Some(bytes) = value.downcast_ref::<CelBytes<'_>>() {
        return make_bytes(bytes.inner().len());
    }
    if let Some(list) = value.downcast_ref::<CelList<'_>>() {
        look_at(list.inner().len())?;
        return list.inner().iter().try_for_each(|item| make(item.as_ref()));
    }
    if let Some(map) = value.downcast_ref::<CelMap<'_>>() {
        look_at(map.inner().len())?;
        return map.inner().iter().try_for_each(|(key, item)| {
            make(key.inner())?;
            make(item.as_ref())
        });
    }
    Ok(())
}

/// Counts bytes that are about to be made.
///
/// # Errors
/// Where they are more than are left.
pub(crate) fn make_bytes(bytes: usize) -> Result<(), ExecutionError> {
    let left = LEFT.get().checked_sub(bytes);
    // Once it is used up it stays so: `exists` and `all` go on after an error.
    LEFT.set(left.unwrap_or(0));
    left.map(|_| ()).ok_or_else(|| {
        ExecutionError::InternalError(format!(
            "the record would cost this expression more than {ITEMS_MAX} items in macros, or {} MiB of \
             texts and lists that it makes",
            BYTES_MAX >> 20
        ))
    })
}
