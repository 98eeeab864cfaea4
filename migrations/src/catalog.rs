//! The catalog: what the events of its log add up to.
//!
//! [`Catalog::fold`] is pure and total. Whether an event *counts* is decided by the frozen rule of
//! acceptance alone: every expected revision equals its view's, and the broker appended it within
//! the event's bounds. Then each named view's revision rises by one, whatever the body says. Whether
//! it was *legal* was judged by whoever appended it ([`crate::plan`], [`crate::steps`]).
//!
//! Invariants, as long as events are appended by those: at most one version of a view is `Live`, at
//! most one is `Standby`; the alias names the live one; version numbers are never used again.

mod requests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use materializer_model::ports::{ControlIdentity, ControlRecord};
use materializer_model::{
    CatalogId, EventId, Growth, Offset, Skip, Timestamp, VersionId, VersionNumber, ViewName,
};

use crate::defect::Defect;
use crate::event::{Body, Envelope, Read, SCHEMA, Started};
use crate::growth::follows;
use crate::lifecycle::{Cause, Role};
use crate::versions::{Declared, Mark, Soak, Version, View};

use materializer_model::defect::is_planted;
use requests::Requests;
pub use requests::{Answer, Asked, REQUEST_EXPIRES};

/// Whether an event counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Accepted,
    /// It was decided on an earlier revision of this view: another event won.
    Stale(ViewName),
    /// It was appended before its time.
    TooEarly,
    /// It was appended after its time.
    TooLate,
    /// It begins a catalog and does not stand at offset 0.
    Misplaced,
    /// It, or one before it, is a newer program's: this one stops deciding.
    Newer,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("counts"),
            Self::Stale(view) => write!(f, "another event about `{view}` was first"),
            Self::TooEarly => f.write_str("too early"),
            Self::TooLate => f.write_str("too late"),
            Self::Misplaced => f.write_str("out of place"),
            Self::Newer => f.write_str("of a newer program"),
        }
    }
}

/// The newest release's event that this one does not understand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newer {
    /// Where it stands.
    pub at: Offset,
    /// What is not understood.
    pub why: String,
}

/// What the events add up to.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    id: Option<CatalogId>,
    topics: Option<ControlIdentity>,
    claims_from: u64,
    next: Offset,
    newer: Option<Newer>,
    revisions: BTreeMap<ViewName, u64>,
    views: BTreeMap<ViewName, View>,
    growths: Vec<Growth>,
    requests: Requests,
}

impl Catalog {
    /// Returns the catalog's id; `None` before event 0.
    #[must_use]
    pub fn id(&self) -> Option<&CatalogId> {
        self.id.as_ref()
    }

    /// Returns the topics that the catalog is bound to.
    #[must_use]
    pub fn topics(&self) -> Option<&ControlIdentity> {
        self.topics.as_ref()
    }

    /// Returns what is added to a claim's offset to make a token: 0 until the catalog was restored, and
    /// above all that was claimed before it was.
    #[must_use]
    pub fn claims_from(&self) -> u64 {
        self.claims_from
    }

    /// Returns the offset of the next event to fold.
    #[must_use]
    pub fn next(&self) -> Offset {
        self.next
    }

    /// Returns the offset up to which the events are understood and in effect: what a gateway
    /// reports as `folded`. Stands still at a newer program's event.
    #[must_use]
    pub fn known_to(&self) -> Offset {
        self.newer.as_ref().map_or(self.next, |newer| newer.at)
    }

    /// Returns the first event that is a newer program's. While there is one, nobody of this release
    /// decides or acts.
    #[must_use]
    pub fn newer(&self) -> Option<&Newer> {
        self.newer.as_ref()
    }

    /// Returns the views by name.
    #[must_use]
    pub fn views(&self) -> &BTreeMap<ViewName, View> {
        &self.views
    }

    /// Returns one view.
    #[must_use]
    pub fn view(&self, name: &ViewName) -> Option<&View> {
        self.views.get(name)
    }

    /// Returns every growth of a topic that was recorded; those of one topic in their order.
    #[must_use]
    pub fn growths(&self) -> &[Growth] {
        &self.growths
    }

    /// Returns one version.
    #[must_use]
    pub fn version(&self, id: &VersionId) -> Option<&Version> {
        self.views.get(&id.view)?.versions.get(&id.number)
    }

    /// Returns a view's revision: what a fact about it must expect.
    #[must_use]
    pub fn revision(&self, view: &ViewName) -> u64 {
        self.revisions.get(view).copied().unwrap_or(0)
    }

    /// Returns a request that is still remembered.
    #[must_use]
    pub fn request(&self, id: &EventId) -> Option<&Asked> {
        self.requests.get(id)
    }

    /// Returns the requests without an answer, in the order of the log.
    #[must_use]
    pub fn outstanding(&self) -> Vec<(&EventId, &Asked)> {
        self.requests.outstanding()
    }

    /// Takes the next record of the catalog's topic in and says whether it counts.
    pub fn fold(&mut self, record: &ControlRecord) -> Verdict {
        self.fold_event(record.offset, record.appended, Envelope::of(record))
    }

    /// Takes the event at the next offset in and says whether it counts.
    pub fn fold_event(&mut self, offset: Offset, appended: Timestamp, event: Read) -> Verdict {
        self.next = offset.next();
        let at = Mark { offset, appended };
        let verdict = match &event {
            Read::Known(event) => self.accept(event, at),
            Read::NewerBody(event) => self.accept(event, at),
            Read::Unreadable(_) => Verdict::Accepted,
        };
        match event {
            _ if verdict != Verdict::Accepted => verdict,
            Read::Known(_) if self.newer.is_some() => Verdict::Newer,
            Read::Known(event) => self.apply(event, at),
            Read::NewerBody(event) => self.stop(at, newer_body(&event)),
            Read::Unreadable(why) => self.stop(at, why),
        }
    }

    fn stop(&mut self, at: Mark, why: String) -> Verdict {
        let at = at.offset;
        self.newer.get_or_insert(Newer { at, why });
        Verdict::Newer
    }

    /// The frozen rule. Never to be changed: every release must come to the same verdict.
    fn accept<B>(&mut self, event: &Envelope<B>, at: Mark) -> Verdict {
        if event.not_before.is_some_and(|bound| at.appended < bound) {
            return Verdict::TooEarly;
        }
        if at.appended > event.not_after {
            return Verdict::TooLate;
        }
        let stale = |(view, expected): &(&ViewName, &u64)| {
            self.revision(view) != **expected && !is_planted(Defect::StaleAccepted)
        };
        if let Some((view, _)) = event.views.iter().find(stale) {
            return Verdict::Stale(view.clone());
        }
        for view in event.views.keys() {
            *self.revisions.entry(view.clone()).or_default() += 1;
        }
        Verdict::Accepted
    }

    fn apply(&mut self, event: Envelope, at: Mark) -> Verdict {
        let begins = matches!(event.body, Body::CatalogCreated { .. });
        if begins != (at.offset == Offset(0)) {
            return Verdict::Misplaced;
        }
        if let Some(id) = &event.answers {
            let settled = self.requests.answer(id, &event.body, at);
            if let Some((view, digest)) = settled {
                self.declare(view, digest, None);
            }
        }
        if let Body::Request {
            verb,
            plan,
            declaration,
        } = event.body
        {
            let asked = Asked {
                at,
                who: event.who,
                why: event.why,
                verb,
                plan,
                declaration,
                taken: false,
                answer: None,
            };
            self.requests.ask(event.id, asked);
        } else {
            let by = format!("{}: {}", event.who, event.why);
            self.apply_fact(event.body, by, at);
        }
        Verdict::Accepted
    }

    fn declare(&mut self, view: ViewName, digest: String, refused: Option<String>) {
        let view = self.views.entry(view).or_default();
        view.declared = Some(Declared { digest, refused });
    }

    fn apply_fact(&mut self, fact: Body, by: String, at: Mark) {
        match fact {
            Body::CatalogCreated { catalog, topics } => {
                self.id = Some(catalog);
                self.topics = Some(topics);
            }
            Body::Adopted {
                topics,
                claims_from,
                numbers,
            } => {
                self.topics = Some(topics);
                self.claims_from = self.claims_from.max(claims_from);
                self.bind_anew(numbers, at);
            }
            Body::Started(started) => self.start(started, at),
            Body::SettingsChanged {
                version,
                definition,
                because: _,
            } => {
                if let Some(version) = self.version_mut(&version) {
                    version.definition = Arc::from(definition);
                }
            }
            Body::Promoted { version, .. } => {
                let view = self.views.entry(version.view).or_default();
                view.move_alias(version.number, Cause::Promoted, at);
            }
            Body::RolledBack { version, from, .. } => {
                let view = self.views.entry(version.view).or_default();
                view.move_alias(version.number, Cause::RolledBackTo, at);
                if let Some(from) = view.versions.get_mut(&from) {
                    from.rolled_back = true;
                }
            }
            Body::AliasConfirmed { view, epoch } => self.confirm(&view, epoch, at),
            Body::SoakInterrupted { version, why } => {
                self.set_soak(&version.view, Soak::Interrupted(why));
            }
            Body::SoakRestarted { version } => {
                self.set_soak(&version.view, Soak::Since(at.appended));
            }
            Body::SoakEnded { version } => self.step(&version, Cause::SoakEnded, at),
            Body::ViewRetired { view } => self.retire_view(view, at),
            Body::Retiring { version } => self.step(&version, Cause::Drained, at),
            Body::Retired { version } => self.step(&version, Cause::Deleted, at),
            Body::Aborted { version } => self.step(&version, Cause::Aborted, at),
            Body::Paused { version } => self.pause(&version, Some(by)),
            Body::Resumed { version } => self.pause(&version, None),
            Body::Skipped {
                view,
                at: record,
                topic_id: id,
            } => {
                let skip = Skip { at: record, id };
                let view = self.views.entry(view).or_default();
                view.skips.insert(skip, at.offset);
            }
            Body::Grown(growth) => {
                if follows(&self.growths, &growth) {
                    self.growths.push(growth);
                }
            }
            Body::Declared {
                view,
                declaration,
                refused,
            } => self.declare(view, declaration, refused),
            Body::Request { .. }
            | Body::Taken {}
            | Body::Refused { .. }
            | Body::Nothing { .. }
            | Body::NoOp {} => {}
        }
    }

    fn confirm(&mut self, view: &ViewName, epoch: Offset, at: Mark) {
        let current = self.views.get_mut(view).and_then(|v| v.alias.as_mut());
        if let Some(alias) = current.filter(|alias| alias.moved.offset == epoch) {
            alias.soak = Soak::Since(at.appended);
        }
    }

    /// What sinks hold may be newer than what was restored: it is led by an epoch above all of theirs,
    /// and no number that they know is given again.
    fn bind_anew(&mut self, numbers: BTreeMap<ViewName, VersionNumber>, at: Mark) {
        for (view, number) in numbers {
            let view = self.views.entry(view).or_default();
            view.last_number = view.last_number.max(Some(number));
        }
        for view in self.views.values_mut() {
            if let Some(alias) = &mut view.alias {
                alias.moved = at;
                alias.soak = Soak::Unconfirmed;
            }
            view.retired = view.retired.map(|_| at);
        }
    }

    fn start(&mut self, started: Started, at: Mark) {
        let claims_from = self.claims_from;
        let id = started.version;
        let view = self.views.entry(id.view.clone()).or_default();
        if let Some(replaced) = started.replaces {
            view.step(replaced, Cause::Aborted, at);
        }
        view.last_number = view.last_number.max(Some(id.number));
        view.versions.entry(id.number).or_insert(Version {
            id,
            claims_from,
            definition: Arc::from(started.definition),
            fingerprint: started.fingerprint,
            shards: started.shards,
            because: started.because,
            role: Role::Building,
            rolled_back: false,
            paused: None,
            started: at,
            changed: at,
        });
    }

    fn retire_view(&mut self, view: ViewName, at: Mark) {
        let view = self.views.entry(view).or_default();
        for role in [Role::Live, Role::Standby, Role::Building] {
            view.step_all(role, Cause::ViewRetired, at);
        }
        view.alias = None;
        view.retired = Some(at);
    }

    fn version_mut(&mut self, id: &VersionId) -> Option<&mut Version> {
        self.views.get_mut(&id.view)?.versions.get_mut(&id.number)
    }

    fn step(&mut self, id: &VersionId, cause: Cause, at: Mark) {
        if let Some(view) = self.views.get_mut(&id.view) {
            view.step(id.number, cause, at);
        }
    }

    fn set_soak(&mut self, view: &ViewName, soak: Soak) {
        if let Some(view) = self.views.get_mut(view) {
            view.set_soak(soak);
        }
    }

    fn pause(&mut self, id: &VersionId, paused: Option<String>) {
        if let Some(version) = self.version_mut(id) {
            version.paused = paused;
        }
    }
}

fn newer_body(event: &Envelope<serde_json::Value>) -> String {
    if event.schema != SCHEMA {
        return format!(
            "it has schema {}, this program knows {SCHEMA}",
            event.schema
        );
    }
    let kind = event.body.as_object().and_then(|body| body.keys().next());
    format!("its body `{}` is unknown", kind.map_or("", String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::NEVER;

    fn view() -> ViewName {
        "products".parse().expect("a name")
    }

    /// A catalog that holds nothing but its event 0.
    fn begun() -> Catalog {
        let mut catalog = Catalog::default();
        let created = Body::CatalogCreated {
            catalog: CatalogId::new("catalog"),
            topics: ControlIdentity {
                cluster: "cluster".into(),
                catalog: materializer_model::TopicId("a".into()),
                claims: materializer_model::TopicId("b".into()),
                progress: materializer_model::TopicId("c".into()),
            },
        };
        assert_eq!(
            fold(&mut catalog, &event(&[], created), 0),
            Verdict::Accepted
        );
        catalog
    }

    fn event(views: &[(&str, u64)], body: Body) -> Envelope {
        let views = views.iter();
        Envelope {
            schema: SCHEMA,
            id: EventId::new("event"),
            views: views
                .map(|(view, revision)| (view.parse().expect("a name"), *revision))
                .collect(),
            not_before: None,
            not_after: NEVER,
            who: "ada".into(),
            why: "a test".into(),
            answers: None,
            body,
        }
    }

    fn fold(catalog: &mut Catalog, event: &Envelope, appended: i64) -> Verdict {
        let record = ControlRecord {
            offset: catalog.next(),
            appended: Timestamp(appended),
            key: None,
            value: Some(event.encode()),
        };
        catalog.fold(&record)
    }

    #[test]
    fn an_event_counts_at_its_revisions_and_within_its_time_and_never_else() {
        let check = |views: &[(&str, u64)], bounds: (i64, i64), expected: Verdict| {
            let mut catalog = begun();
            assert_eq!(
                fold(&mut catalog, &event(&[("products", 0)], Body::NoOp {}), 0),
                Verdict::Accepted
            );
            let mut event = event(views, Body::NoOp {});
            event.not_before = Some(Timestamp(bounds.0));
            event.not_after = Timestamp(bounds.1);
            let counts = expected == Verdict::Accepted;
            assert_eq!(
                fold(&mut catalog, &event, 100),
                expected,
                "{views:?} {bounds:?}"
            );
            let named = views.iter().any(|(view, _)| *view == "products");
            assert_eq!(catalog.revision(&view()), 1 + u64::from(counts && named));
        };
        check(&[("products", 1)], (100, 100), Verdict::Accepted);
        check(
            &[("products", 1), ("other", 0)],
            (0, 200),
            Verdict::Accepted,
        );
        check(&[], (0, 200), Verdict::Accepted);
        check(&[("products", 0)], (0, 200), Verdict::Stale(view()));
        check(&[("products", 2)], (0, 200), Verdict::Stale(view()));
        let other = "other".parse().expect("a name");
        check(
            &[("products", 1), ("other", 1)],
            (0, 200),
            Verdict::Stale(other),
        );
        check(&[("products", 1)], (101, 200), Verdict::TooEarly);
        check(&[("products", 1)], (0, 99), Verdict::TooLate);
    }

    #[test]
    fn an_event_that_was_appended_twice_counts_once() {
        let mut catalog = begun();
        let event = event(&[("products", 0)], Body::NoOp {});
        assert_eq!(fold(&mut catalog, &event, 0), Verdict::Accepted);
        assert_eq!(fold(&mut catalog, &event, 0), Verdict::Stale(view()));
    }

    #[test]
    fn a_catalog_begins_once() {
        let mut catalog = begun();
        let again = Body::CatalogCreated {
            catalog: CatalogId::new("another"),
            topics: catalog.topics().expect("bound").clone(),
        };
        assert_eq!(
            fold(&mut catalog, &event(&[], again), 0),
            Verdict::Misplaced
        );
        assert_eq!(catalog.id(), Some(&CatalogId::new("catalog")));
        let first = fold(&mut Catalog::default(), &event(&[], Body::NoOp {}), 0);
        assert_eq!(first, Verdict::Misplaced);
    }

    #[test]
    fn a_newer_programs_event_uses_its_revisions_up_and_ends_all_deciding() {
        let mut catalog = begun();
        let mut newer = event(&[("products", 0)], Body::NoOp {});
        newer.schema = 2;
        assert_eq!(fold(&mut catalog, &newer, 0), Verdict::Newer);
        assert_eq!(catalog.revision(&view()), 1);
        assert_eq!(catalog.known_to(), Offset(1));
        let next = event(&[("products", 1)], Body::NoOp {});
        assert_eq!(fold(&mut catalog, &next, 0), Verdict::Newer);
        assert_eq!(catalog.revision(&view()), 2, "every release counts alike");
        assert_eq!((catalog.known_to(), catalog.next()), (Offset(1), Offset(3)));
    }
}
