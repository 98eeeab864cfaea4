//! Topics that get more partitions: what workers report of it once, every build of every view reads by.

use materializer_model::Growth;

use crate::catalog::Catalog;
use crate::decide::{Action, Fact, Observed};
use crate::event::Body;

/// Records a growth that a worker reports and the catalog does not know; of several workers the first one
/// names the barrier.
pub(crate) fn record(catalog: &Catalog, seen: &Observed<'_>) -> Option<Action> {
    seen.reports.units().find_map(|heard| {
        let growth = heard.report.growth.as_ref()?;
        let view = &heard.report.unit.version.view;
        let is_new = follows(catalog.growths(), growth) && catalog.view(view).is_some();
        let body = Body::Grown(growth.clone());
        is_new.then(|| Fact::new(catalog, view, body).append())
    })
}

/// Says whether a growth is the next one of its topic. Each is recorded once: two coordinators that decide by
/// the reports of two views do not lose against each other.
pub(crate) fn follows(known: &[Growth], growth: &Growth) -> bool {
    let is_of_topic = |other: &&Growth| other.topic == growth.topic && other.id == growth.id;
    let last = known.iter().rfind(is_of_topic);
    growth.from < growth.to && last.is_none_or(|last| last.to == growth.from)
}
