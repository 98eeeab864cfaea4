//! The events of the catalog as they are stored: the envelope, requests and facts.
//!
//! The envelope's form and the rule of its acceptance are frozen for ever: every release, older or
//! newer, must agree on which events count. Bodies may be added; a body that this release does not
//! know stops it from deciding. The golden file `tests/golden/events.jsonl` holds one of each.

use std::collections::{BTreeMap, BTreeSet};

use materializer_model::ports::{ControlIdentity, ControlRecord};
use materializer_model::progress::GateReading;
use materializer_model::{
    CatalogId, EventId, Fingerprint, Growth, Offset, Origin, Timestamp, TopicId, VersionId,
    VersionNumber, ViewDefinition, ViewName,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::plan::Plan;

/// The schema number that this release writes and understands.
pub const SCHEMA: u32 = 1;

/// The upper bound of an append time that bounds nothing.
pub const NEVER: Timestamp = Timestamp(i64::MAX);

/// An event of the catalog: the JSON value of a record without a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope<B = Body> {
    /// The schema number; a higher one than [`SCHEMA`] is a newer program's.
    pub schema: u32,
    /// Random. An event that was appended twice counts once, because its revisions are used up.
    pub id: EventId,
    /// The views that it changes, each with the revision that was decided on. Empty for requests.
    pub views: BTreeMap<ViewName, u64>,
    /// The earliest append time at which it counts.
    pub not_before: Option<Timestamp>,
    /// The latest append time at which it counts.
    pub not_after: Timestamp,
    /// Who asked for it or, for the coordinator's own, which coordinator.
    pub who: String,
    /// The reason that was given.
    pub why: String,
    /// The request that it answers.
    pub answers: Option<EventId>,
    /// What is asked, or what is so from now on.
    pub body: B,
}

/// What a release makes of a stored event.
#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    /// It is understood.
    Known(Envelope),
    /// The envelope is a known one, the body a newer program's.
    NewerBody(Envelope<Value>),
    /// Not even the envelope can be read.
    Unreadable(String),
}

impl Read {
    /// Returns the event's id, where the envelope can be read.
    #[must_use]
    pub fn id(&self) -> Option<&EventId> {
        match self {
            Self::Known(event) => Some(&event.id),
            Self::NewerBody(event) => Some(&event.id),
            Self::Unreadable(_) => None,
        }
    }
}

impl Envelope {
    /// Returns the stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text keys, numbers and finite floats always serialise")
    }

    /// Reads the event that a record of the catalog holds.
    #[must_use]
    pub fn of(record: &ControlRecord) -> Read {
        Self::read(record.value.as_deref().unwrap_or_default())
    }

    /// Reads a stored event of any release.
    #[must_use]
    pub fn read(stored: &[u8]) -> Read {
        let frozen: Envelope<Value> = match serde_json::from_slice(stored) {
            Ok(frozen) => frozen,
            Err(fault) => return Read::Unreadable(fault.to_string()),
        };
        if frozen.schema != SCHEMA {
            return Read::NewerBody(frozen);
        }
        match Body::deserialize(&frozen.body) {
            Ok(body) => Read::Known(frozen.with_body(body)),
            Err(_) => Read::NewerBody(frozen),
        }
    }
}

impl<B> Envelope<B> {
    fn with_body<C>(self, body: C) -> Envelope<C> {
        Envelope {
            schema: self.schema,
            id: self.id,
            views: self.views,
            not_before: self.not_before,
            not_after: self.not_after,
            who: self.who,
            why: self.why,
            answers: self.answers,
            body,
        }
    }
}

/// What is asked by a verb. Names its target, changes nothing by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Verb {
    /// The view shall be what this definition says.
    Apply {
        /// The definition, defaults written out.
        definition: Box<ViewDefinition>,
        /// Its fingerprint.
        fingerprint: Fingerprint,
        /// How it differs from the live version's, in words.
        because: Vec<String>,
        /// Whether another candidate is aborted for it.
        replace: bool,
        /// Whether it is built anew although a version is this definition already: a version whose
        /// sink lost data is never mended, only built once more.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        rebuild: bool,
    },
    /// The alias shall name this version.
    Promote {
        /// The version.
        version: VersionId,
        /// The gates to do without.
        waive: BTreeSet<String>,
    },
    /// The alias shall name the standby again.
    Rollback {
        /// The view.
        view: ViewName,
        /// The gates to do without.
        waive: BTreeSet<String>,
    },
    /// The version shall not be fed for now.
    Pause {
        /// The version.
        version: VersionId,
    },
    /// A paused version shall be fed again.
    Resume {
        /// The version.
        version: VersionId,
    },
    /// A record shall be passed over, in this and every later build of the view.
    Skip {
        /// The version that stands before it.
        version: VersionId,
        /// The record.
        at: Origin,
        /// The id of the topic that the version reads; `None` where nobody has said it yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topic_id: Option<TopicId>,
    },
    /// The standby, or the whole view, shall go.
    Retire {
        /// The view.
        view: ViewName,
        /// The standby; `None` is the whole view.
        version: Option<VersionNumber>,
    },
    /// The candidate shall be given up.
    Abort {
        /// The version.
        version: VersionId,
    },
}

impl Verb {
    /// Returns the view that it is about.
    #[must_use]
    pub fn view(&self) -> &ViewName {
        match self {
            Self::Apply { definition, .. } => &definition.view,
            Self::Promote { version, .. }
            | Self::Pause { version }
            | Self::Resume { version }
            | Self::Skip { version, .. }
            | Self::Abort { version } => &version.view,
            Self::Rollback { view, .. } | Self::Retire { view, .. } => view,
        }
    }

    /// Returns the verb as it is typed.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Apply { .. } => "apply",
            Self::Promote { .. } => "promote",
            Self::Rollback { .. } => "rollback",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Skip { .. } => "skip",
            Self::Retire { .. } => "retire",
            Self::Abort { .. } => "abort",
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A request or a fact. Facts are in the past tense.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Body {
    /// Somebody asks for something. Answered by a fact.
    Request {
        /// What is asked.
        verb: Verb,
        /// The plan that was shown: it is carried out, or nothing is.
        plan: Plan,
        /// The digest of the declaration that asks for it; `None` where a person does. Once it is done, the
        /// declaration is settled.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        declaration: Option<String>,
    },

    /// The catalog begins. Counts at offset 0 only.
    CatalogCreated {
        /// Its random id.
        catalog: CatalogId,
        /// Its topics.
        topics: ControlIdentity,
    },
    /// The catalog was restored into other topics, and these are right from now on. Every alias has
    /// this event's offset as its epoch, and its soak begins anew.
    Adopted {
        /// The topics.
        topics: ControlIdentity,
        /// What is added to a claim's offset to make a token: above all that was ever claimed.
        #[serde(default, skip_serializing_if = "is_zero")]
        claims_from: u64,
        /// The highest number that a sink knows of each view, where it is higher than the catalog's:
        /// it is never given again.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        numbers: BTreeMap<ViewName, VersionNumber>,
    },

    /// A coordinator works on a request.
    Taken {},
    /// A request is refused.
    Refused {
        /// Why.
        why: String,
        /// What to type instead.
        hint: Option<String>,
        /// The gates as they were read, where one of them is the reason.
        gates: Vec<GateReading>,
    },
    /// A request asked for what is so already.
    Nothing {
        /// What is so.
        why: String,
    },
    /// Nothing happened; a revision was used up, to settle whether an earlier event counts.
    NoOp {},

    /// A version begins to be built.
    Started(Started),
    /// What only says how a version runs was changed.
    SettingsChanged {
        /// The version.
        version: VersionId,
        /// Its definition from now on; the fingerprint is the same.
        definition: Box<ViewDefinition>,
        /// What was changed.
        because: Vec<String>,
    },
    /// The alias names another version. The event's offset is the alias epoch.
    Promoted {
        /// The version that is live.
        version: VersionId,
        /// The version that was live: the standby and rollback target.
        from: Option<VersionNumber>,
        /// The standby until then, whose soak this ends.
        ends: Option<VersionNumber>,
        /// The gates as they were read.
        evidence: Vec<GateReading>,
        /// The gates that were done without.
        waived: BTreeSet<String>,
    },
    /// The alias names the standby again. The event's offset is the alias epoch.
    RolledBack {
        /// The version that is live.
        version: VersionId,
        /// The version that was live: the standby, marked rolled back.
        from: VersionNumber,
        /// The gates as they were read.
        evidence: Vec<GateReading>,
        /// The gates that were done without.
        waived: BTreeSet<String>,
    },
    /// The alias was read back from the sink and from every gateway that is alive. The soak begins.
    AliasConfirmed {
        /// The view.
        view: ViewName,
        /// The alias epoch.
        epoch: Offset,
    },
    /// The standby is unhealthy: a rollback would not be fresh, and this time does not count.
    SoakInterrupted {
        /// The standby.
        version: VersionId,
        /// What is wrong with it.
        why: String,
    },
    /// The standby is well again; its soak begins anew.
    SoakRestarted {
        /// The standby.
        version: VersionId,
    },
    /// The standby is dropped.
    SoakEnded {
        /// The standby.
        version: VersionId,
    },
    /// The whole view is retired; no alias names anything.
    ViewRetired {
        /// The view.
        view: ViewName,
    },
    /// No reader uses the version any more; its deletion begins.
    Retiring {
        /// The version.
        version: VersionId,
    },
    /// Nothing of the version is left.
    Retired {
        /// The version.
        version: VersionId,
    },
    /// The candidate was given up; its deletion begins.
    Aborted {
        /// The version.
        version: VersionId,
    },
    /// The version is not fed for now.
    Paused {
        /// The version.
        version: VersionId,
    },
    /// The version is fed again.
    Resumed {
        /// The version.
        version: VersionId,
    },
    /// A record is passed over by every build of the view that reads the topic with this id.
    Skipped {
        /// The view.
        view: ViewName,
        /// The record.
        at: Origin,
        /// The id of its topic. An older release did not write it: such an event holds for the versions that
        /// had been started before it, each of which reads one topic of that name or is damaged.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topic_id: Option<TopicId>,
    },
    /// A topic got more partitions: every build of every view reads it era by era.
    Grown(Growth),
    /// What is declared of a view is so already, or is refused for good: nobody asks for it again until
    /// another one is declared.
    Declared {
        /// The view.
        view: ViewName,
        /// The digest of the declaration.
        declaration: String,
        /// Why it is not carried out.
        refused: Option<String>,
    },
}

/// A version begins to be built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Started {
    /// The version.
    pub version: VersionId,
    /// What it is.
    pub definition: Box<ViewDefinition>,
    /// The hash of what decides its data.
    pub fingerprint: Fingerprint,
    /// Into how many units its partitions are split, for as long as it lives.
    pub shards: u16,
    /// Why a new version was needed.
    pub because: Vec<String>,
    /// The candidate that was aborted for it.
    pub replaces: Option<VersionNumber>,
}
