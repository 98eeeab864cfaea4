//! The comparison of two versions with each other, which asks no log.

use materializer_model::Key;
use materializer_model::ports::{SinkError, SinkReader, StoredRow};

use super::{Difference, KEYS_AT_ONCE, Report, VerifyError};

/// Compares two versions key by key, as they are stored; expired rows count as they are.
///
/// # Errors
/// [`VerifyError::Sink`].
pub fn against(
    one: &mut dyn SinkReader,
    other: &mut dyn SinkReader,
    examples_max: usize,
) -> Result<Report, VerifyError> {
    let mut report = Report::default();
    half(one, other, &mut report, examples_max, false)?;
    half(other, one, &mut report, examples_max, true)?;
    report.passes = 1;
    Ok(report)
}

/// Looks up in `other` what `one` holds. The second time only what `other` lacks is news.
fn half(
    one: &mut dyn SinkReader,
    other: &mut dyn SinkReader,
    report: &mut Report,
    examples_max: usize,
    second: bool,
) -> Result<(), VerifyError> {
    let mut page: Vec<(Key, StoredRow)> = Vec::new();
    let mut fault = None;
    let mut look_up = |page: &mut Vec<(Key, StoredRow)>| -> Result<(), SinkError> {
        let keys: Vec<Key> = page.iter().map(|(key, _)| key.clone()).collect();
        let snapshot = other.read(&keys)?;
        for ((key, has), had) in page.drain(..).zip(snapshot.rows) {
            let (has, had) = (Some(has.row), had.map(|had| had.row));
            let (should, is) = if second { (had, has) } else { (has, had) };
            if !second {
                report.keys += 1;
                report.rows += 1;
            } else {
                *report.stored.get_or_insert(0) += 1;
            }
            if should != is && (!second || should.is_none()) {
                report.add(Difference { key, should, is }, examples_max);
            }
        }
        Ok(())
    };
    one.scan(&mut |key, row| {
        page.push((key, row));
        if page.len() == KEYS_AT_ONCE
            && let Err(error) = look_up(&mut page)
        {
            fault = Some(error);
        }
        fault.is_none()
    })?;
    if let Some(error) = fault {
        return Err(error.into());
    }
    Ok(look_up(&mut page)?)
}
