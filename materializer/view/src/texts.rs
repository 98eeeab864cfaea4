//! `replace` and `join` of texts, which can make the product of two sizes of a record: what they are about to
//! make is counted first. CEL's own make it and ask nobody; apart from that these give what those give.

use cel::common::types::{CelInt, CelString, LIST_TYPE, STRING_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError, add_member_overload};

use crate::budget;

/// `text.replace(from, to)` and `text.replace(from, to, times)`.
pub(crate) const REPLACE: &str = "@replace";
/// `list.join()` and `list.join(separator)`.
pub(crate) const JOIN: &str = "@join";

/// Adds both to an environment.
///
/// # Errors
/// Where it has them already.
pub(crate) fn add_to(env: &mut Env) -> Result<(), DeclarationError> {
    add_member_overload!(env, fn replace: (CelString, CelString, CelString) -> Result<CelString>, name = REPLACE)?;
    add_member_overload!(env, fn replace_some: (CelString, CelString, CelString, CelInt) -> Result<CelString>, name = REPLACE)?;
    env.add_member_overload(JOIN, "@join()", LIST_TYPE, vec![], join)?;
    env.add_member_overload(JOIN, "@join(string)", LIST_TYPE, vec![STRING_TYPE], join)
}

fn replace(
    text: &CelString<'_>,
    from: &CelString<'_>,
    to: &CelString<'_>,
) -> Result<CelString<'static>, ExecutionError> {
    replace_times(text.inner(), from.inner(), to.inner(), usize::MAX)
}

fn replace_some(
    text: &CelString<'_>,
    from: &CelString<'_>,
    to: &CelString<'_>,
    times: &CelInt,
) -> Result<CelString<'static>, ExecutionError> {
    // A negative number of times is every time.
    let times = usize::try_from(*times.inner()).unwrap_or(usize::MAX);
    replace_times(text.inner(), from.inner(), to.inner(), times)
}

fn replace_times(
    text: &str,
    from: &str,
    to: &str,
    times: usize,
) -> Result<CelString<'static>, ExecutionError> {
    let found = text.matches(from).take(times).count();
    // Only by what the text grows: to clean a large one in many steps is no abuse.
    budget::make_bytes(found.saturating_mul(to.len().saturating_sub(from.len())))?;
    Ok(text.replacen(from, to, times).into())
}

fn join<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let (list, separator) = match arguments.as_slice() {
        [list] => (list, ""),
        [list, separator] => (list, text(separator.as_ref())?),
        _ => return Err(ExecutionError::invalid_argument_count(2, arguments.len())),
    };
    let items = list
        .as_iterable()
        .ok_or_else(|| unexpected(list.as_ref(), "list"))?;
    let mut items = items.iter();
    let mut parts = Vec::new();
    let mut bytes = 0_usize;
    while let Some(item) = items.next() {
        let part = text(item)?;
        bytes = bytes
            .saturating_add(part.len())
            .saturating_add(separator.len());
        parts.push(part);
    }
    budget::make_bytes(bytes)?;
    Ok(CowVal::owned(CelString::from(parts.join(separator))))
}

fn text<'b>(value: &'b (dyn Val + '_)) -> Result<&'b str, ExecutionError> {
    let text = value.downcast_ref::<CelString<'_>>();
    text.map(CelString::inner)
        .ok_or_else(|| unexpected(value, "string"))
}

fn unexpected(value: &dyn Val, want: &str) -> ExecutionError {
    ExecutionError::UnexpectedType {
        got: value.get_type().name().to_owned(),
        want: want.to_owned(),
    }
}
