//! Reading what the sampled gates of a candidate need: queries, keys and counts of documents.

use std::collections::BTreeMap;
use std::time::Duration;

use materializer_model::ports::SinkError;
use materializer_model::{Offset, Timestamp, Unit, VersionId};

use crate::coordinator::ViewSinks;
use crate::decide::ALIVE;
use crate::gates::{Evidence, Sampled};
use crate::reports::Reports;
use crate::versions::Version;

/// How long one call counts.
const COUNT_BUDGET: Duration = Duration::from_millis(50);
/// How old a count may be that a gate rests on.
const COUNT_EXPIRES: Duration = Duration::from_secs(600);
/// How old a count is when the next one is begun.
const COUNT_AGAIN: Duration = Duration::from_secs(300);

/// Counts by scanning, each over many calls.
#[derive(Debug, Default)]
pub(crate) struct Counts(BTreeMap<VersionId, Count>);

#[derive(Debug, Default)]
struct Count {
    /// The last whole count, and the broker's time when it was finished.
    whole: Option<(u64, Timestamp)>,
    /// The rows seen by the one under way.
    under_way: Option<u64>,
}

/// Reads a candidate's samples; says also whether a count is still under way.
pub(crate) fn sample(
    sinks: &mut dyn ViewSinks,
    reports: &Reports,
    counts: &mut Counts,
    candidate: &Version,
    live: Option<&Version>,
    now: Timestamp,
) -> (Sampled, bool) {
    let gates = &candidate.definition.gates;
    let copies = servable_copies(reports, candidate);
    let ask = |query| {
        let hits = sinks.hits(query, &copies);
        hits.map_err(|fault| fault.to_string())
    };
    let hits = gates.queries.iter().map(ask).collect();
    let keys = exist(sinks, candidate, &gates.keys);
    let mut sampled = Sampled {
        documents: Err("not counted".to_owned()),
        hits,
        keys: keys.map_err(|fault| fault.to_string()),
    };
    let Some(live) = live.filter(|_| gates.documents_ratio.is_some()) else {
        return (sampled, false);
    };
    let counted = [candidate, live].map(|version| counts.of(sinks, reports, version, now));
    let counting = counted
        .iter()
        .any(|count| matches!(count, Err(Uncounted::Counting(_))));
    let [ours, theirs] = counted;
    sampled.documents = ours
        .and_then(|ours| Ok((ours, theirs?)))
        .map_err(|uncounted| uncounted.to_string());
    (sampled, counting)
}

/// Returns the units that readers may be sent to, with the addresses of their workers.
fn servable_copies(reports: &Reports, version: &Version) -> Vec<(Unit, String)> {
    let evidence = Evidence::collect(version, reports, Offset(0));
    let servable = evidence.reports().filter(|heard| heard.report.servable);
    servable
        .filter_map(|heard| Some((heard.report.unit.clone(), heard.report.address.clone()?)))
        .collect()
}

fn exist(
    sinks: &mut dyn ViewSinks,
    version: &Version,
    keys: &[String],
) -> Result<Vec<bool>, SinkError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    match sinks.admin(&version.definition)? {
        Some(admin) => admin.exist(&version.id, keys),
        None => Err(SinkError::Refused(
            "the sink has no keys to ask for".to_owned(),
        )),
    }
}

/// Why there is no count.
#[derive(Debug, thiserror::Error)]
enum Uncounted {
    #[error("counting, {0} rows so far")]
    Counting(u64),
    #[error("not past its bar")]
    Replaying,
    #[error("its holders do not tell")]
    Untold,
    #[error(transparent)]
    Sink(#[from] SinkError),
}

impl Counts {
    /// Returns a version's documents: as its units report them, or else as a scan counts them, which
    /// was begun after the version had passed its bar.
    fn of(
        &mut self,
        sinks: &mut dyn ViewSinks,
        reports: &Reports,
        version: &Version,
        now: Timestamp,
    ) -> Result<u64, Uncounted> {
        let evidence = Evidence::collect(version, reports, Offset(0));
        let alive = evidence.oldest().is_some_and(|at| now <= at.plus(ALIVE));
        if let Some(documents) = evidence.documents().filter(|_| alive) {
            return Ok(documents);
        }
        let past_bar = |evidence: &Evidence<'_>| evidence.reports().all(|h| h.report.servable);
        if !evidence.is_complete() || !past_bar(&evidence) {
            return Err(Uncounted::Replaying);
        }
        let count = self.0.entry(version.id.clone()).or_default();
        let age = |(_, at): (u64, Timestamp)| now.since(at);
        if count.under_way.is_some() || count.whole.is_none_or(|whole| age(whole) >= COUNT_AGAIN) {
            let admin = sinks.admin(&version.definition)?.ok_or(Uncounted::Untold)?;
            let counted = admin.count(&version.id, COUNT_BUDGET)?;
            count.under_way = (!counted.finished).then_some(counted.rows);
            if counted.finished {
                count.whole = Some((counted.rows, now));
            }
        }
        match (count.whole, count.under_way) {
            (Some(whole), _) if age(whole) < COUNT_EXPIRES => Ok(whole.0),
            (_, rows) => Err(Uncounted::Counting(rows.unwrap_or(0))),
        }
    }
}
