//! What lies between a definition and the versions that there are.

use materializer_migrations::Catalog;
use materializer_model::{Fingerprint, ViewDefinition};
use materializer_view::{Difference, diff};

/// Says what lies between a definition and the version that it is held against: the one that is this
/// definition already, else the live one, else the candidate. `None` for a view's first version.
fn difference(
    catalog: &Catalog,
    definition: &ViewDefinition,
    fingerprint: &Fingerprint,
) -> Option<Difference> {
    let view = catalog.view(&definition.view)?;
    let versions = [view.live(), view.standby(), view.candidate()];
    let mut known = versions.into_iter().flatten();
    let same = known
        .clone()
        .find(|version| version.fingerprint == *fingerprint);
    let against = same.or_else(|| known.next())?;
    let difference = diff(&against.definition, definition);
    Some(difference.given(&against.fingerprint, fingerprint))
}

/// Says why a definition needs another version than there are; nothing for a view's first one.
pub(crate) fn because(
    catalog: &Catalog,
    definition: &ViewDefinition,
    fingerprint: &Fingerprint,
) -> Vec<String> {
    let difference = difference(catalog, definition, fingerprint);
    let reasons = difference
        .iter()
        .flat_map(|difference| difference.reasons());
    reasons.map(ToString::to_string).collect()
}
