//! What a verb needs: the catalog read to its end, requests appended, their answers awaited.
//!
//! The client never waits by itself: its caller refreshes, asks for the [`Outcome`], and sleeps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use materializer_model::ports::{ControlError, ControlLog, ControlTopic};
use materializer_model::progress::GateReading;
use materializer_model::{EventId, Origin, Timestamp, VersionId, ViewName};

use crate::adoption::Adoption;
use crate::append::append;
use crate::catalog::{Answer, REQUEST_EXPIRES, Verdict};
use crate::declare::{Declaration, Step};
use crate::event::{Body, Envelope, NEVER, SCHEMA, Started, Verb};
use crate::gates::failing;
use crate::judge::{Refusal, plan};
use crate::plan::Plan;
use crate::reports::{CLIENT, FollowError, Follower};

/// How long a coordinator has to say that it works on a request.
pub const TAKEN_WITHIN: Duration = Duration::from_secs(5);

/// A fault of a verb, by what its user does about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The control topics.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The catalog holds an event of a newer program.
    #[error("the event at offset {0} of the catalog is a newer program's: use that program")]
    Newer(u64),
    /// The verb cannot be done as things are.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Another process changed the view at the same time.
    #[error("`{0}` was changed by somebody else at the same time")]
    Overtaken(ViewName),
}

impl From<ControlError> for ClientError {
    fn from(fault: ControlError) -> Self {
        Self::Follow(fault.into())
    }
}

impl ClientError {
    /// Says whether it passes by itself: a broker that is elected or restarted.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Follow(FollowError::Log(fault)) if fault.may_pass())
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// There was nothing to do.
    Nothing(String),
    /// It was refused, for another reason than a gate.
    Refused {
        /// Why.
        why: String,
        /// What to type instead.
        hint: Option<String>,
    },
    /// A gate did not hold.
    GateFailed {
        /// Why.
        why: String,
        /// What to type instead.
        hint: Option<String>,
        /// Every gate as it was read.
        gates: Vec<GateReading>,
    },
    /// No coordinator has taken it. It expires by itself, and may be done until then.
    NoCoordinator,
    /// It was taken, or its append was not acknowledged, and nobody answered it.
    Unknown,
}

impl Outcome {
    /// Returns the exit code of the verb: 0 done, 1 refused, 3 a gate, 4 unknown.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Done | Self::Nothing(_) => 0,
            Self::Refused { .. } => 1,
            Self::GateFailed { .. } => 3,
            Self::NoCoordinator | Self::Unknown => 4,
        }
    }
}

/// A process's hand on the catalog.
pub struct CatalogClient {
    log: Box<dyn ControlLog>,
    state: Follower,
    who: String,
    new_id: Box<dyn FnMut() -> EventId + Send>,
}

impl CatalogClient {
    /// Reads the control topics to their ends and checks whose they are.
    ///
    /// `who` is written into every event; `new_id` returns a random id each time.
    ///
    /// # Errors
    /// [`ClientError`]; `Missing` where no coordinator ever ran.
    pub fn open(
        log: Box<dyn ControlLog>,
        who: &str,
        new_id: Box<dyn FnMut() -> EventId + Send>,
    ) -> Result<Self, ClientError> {
        let mut client = Self::unopened(log, who, new_id);
        client.follow_existing()?;
        client.state.check_identity(&mut *client.log)?;
        Ok(client)
    }

    /// Reads the control topics to their ends, whosever they are: what [`CatalogClient::adopt`] needs,
    /// and nothing else may.
    ///
    /// # Errors
    /// [`ClientError`]; `Missing` where there are none.
    pub fn open_unbound(
        log: Box<dyn ControlLog>,
        who: &str,
        new_id: Box<dyn FnMut() -> EventId + Send>,
    ) -> Result<Self, ClientError> {
        let mut client = Self::unopened(log, who, new_id);
        client.state = Follower::of_restored();
        client.follow_existing()?;
        Ok(client)
    }

    /// Creates the control topics and the catalog where there is none, then opens it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn create(
        log: Box<dyn ControlLog>,
        who: &str,
        new_id: Box<dyn FnMut() -> EventId + Send>,
    ) -> Result<Self, ClientError> {
        let mut client = Self::unopened(log, who, new_id);
        client
            .state
            .create(&mut *client.log, who, &mut client.new_id)?;
        Ok(client)
    }

    fn unopened(
        log: Box<dyn ControlLog>,
        who: &str,
        new_id: Box<dyn FnMut() -> EventId + Send>,
    ) -> Self {
        Self {
            log,
            state: Follower::default(),
            who: who.to_owned(),
            new_id,
        }
    }

    fn follow_existing(&mut self) -> Result<(), ClientError> {
        if self.log.identity()?.is_none() {
            return Err(FollowError::Missing.into());
        }
        self.refresh()
    }

    /// Returns what was read so far.
    #[must_use]
    pub fn state(&self) -> &Follower {
        &self.state
    }

    /// Reads on to the ends.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn refresh(&mut self) -> Result<(), ClientError> {
        self.state.follow(&mut *self.log)?;
        Ok(())
    }

    /// Asks the broker for its time, by a record of progress that is read back, and reads on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn now(&mut self) -> Result<Timestamp, ClientError> {
        let value = serde_json::json!({ "who": self.who }).to_string();
        self.log
            .append(ControlTopic::Progress, Some(CLIENT), Some(value.as_bytes()))?;
        self.refresh()?;
        let newest = self.state.reports().newest();
        Ok(newest.expect("a record was appended and read back"))
    }

    /// Returns what a verb would do now.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with what to type instead.
    pub fn plan(&self, verb: &Verb) -> Result<Plan, ClientError> {
        if let Some(newer) = self.state.catalog().newer() {
            return Err(ClientError::Newer(newer.at.0));
        }
        Ok(plan(self.state.catalog(), verb)?)
    }

    /// Returns the verb that passes a record over: one of the topic that the version reads, by its id.
    #[must_use]
    pub fn skip(&self, version: VersionId, at: Origin) -> Verb {
        let known = self.state.catalog().version(&version);
        let topic_id = known.and_then(|known| self.state.reports().topic_read(known, &at));
        Verb::Skip {
            topic_id: topic_id.cloned(),
            version,
            at,
        }
    }

    /// Appends a request for a plan that was shown, and returns its id. Nothing has happened yet.
    ///
    /// # Errors
    /// [`ClientError`], with nothing appended. An append that nobody acknowledged is no error: its
    /// outcome tells.
    pub fn ask(&mut self, verb: Verb, plan: Plan, why: &str) -> Result<EventId, ClientError> {
        self.ask_declared(verb, plan, None, why)
    }

    /// Does what is to be done next about a declaration, and returns what that was and the request that was
    /// appended for it. `because` is how the definition differs from what there is.
    ///
    /// # Errors
    /// [`ClientError`]; `Overtaken` where another process changed the view meanwhile.
    pub fn declare(
        &mut self,
        declaration: &Declaration,
        because: Vec<String>,
        why: &str,
    ) -> Result<(Step, Option<EventId>), ClientError> {
        if let Some(newer) = self.state.catalog().newer() {
            return Err(ClientError::Newer(newer.at.0));
        }
        let step = declaration.next(self.state.catalog(), because);
        let request = match step.clone() {
            Step::Settled | Step::Await | Step::Refused(_) => None,
            Step::Ask {
                verb,
                plan,
                settles,
            } => Some(self.ask_declared(*verb, plan, settles, why)?),
            Step::Settle { refused } => {
                self.settle(declaration, refused, why)?;
                None
            }
        };
        Ok((step, request))
    }

    fn ask_declared(
        &mut self,
        verb: Verb,
        plan: Plan,
        declaration: Option<String>,
        why: &str,
    ) -> Result<EventId, ClientError> {
        let body = Body::Request {
            verb,
            plan,
            declaration,
        };
        let event = self.event(BTreeMap::new(), body, why);
        let sent = self
            .log
            .append(ControlTopic::Catalog, None, Some(&event.encode()));
        match sent {
            Ok(_) | Err(ControlError::Unknown(_)) => Ok(event.id),
            Err(fault) => Err(fault.into()),
        }
    }

    /// Returns what became of a request, as far as was read; `None` while it is worth waiting.
    /// `waited` is how long ago it was appended, on the caller's monotonic clock.
    #[must_use]
    pub fn outcome(&self, request: &EventId, waited: Duration) -> Option<Outcome> {
        let patience = REQUEST_EXPIRES + TAKEN_WITHIN;
        let Some(asked) = self.state.catalog().request(request) else {
            return (waited >= TAKEN_WITHIN * 3).then_some(Outcome::Unknown);
        };
        match &asked.answer {
            Some((_, answer)) => Some(outcome_of(answer)),
            None if !asked.taken && waited >= TAKEN_WITHIN => Some(Outcome::NoCoordinator),
            None => (waited >= patience).then_some(Outcome::Unknown),
        }
    }

    /// Returns the gates as they were read for a request that was done; none where none was asked.
    #[must_use]
    pub fn gates_of(&self, request: &EventId) -> &[GateReading] {
        let asked = self.state.catalog().request(request);
        match asked.and_then(|asked| asked.answer.as_ref()) {
            Some((_, Answer::Done { gates })) => gates,
            Some((_, Answer::Nothing(_) | Answer::Refused { .. })) | None => &[],
        }
    }

    /// Starts a version without a coordinator, by appending the fact itself.
    ///
    /// # Errors
    /// [`ClientError`]; `Overtaken` where another process changed the view meanwhile.
    pub fn start(&mut self, verb: &Verb, why: &str) -> Result<Plan, ClientError> {
        let plan = self.plan(verb)?;
        let Some(started) = started(&plan, verb) else {
            return Ok(plan);
        };
        let view = verb.view().clone();
        let revision = self.state.catalog().revision(&view);
        let views = BTreeMap::from([(view.clone(), revision)]);
        self.append(views, Body::Started(started), why)?;
        Ok(plan)
    }

    /// Binds the catalog to the topics that it stands in now, after it was restored into them. Doing it
    /// again after a fault goes on where that was.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn adopt(&mut self, adoption: Adoption, why: &str) -> Result<(), ClientError> {
        for _ in 0..adoption.behind(self.state.catalog()) {
            let nothing = self.event(BTreeMap::new(), Body::NoOp {}, why).encode();
            self.log
                .append(ControlTopic::Catalog, None, Some(&nothing))?;
        }
        let adopted = Body::Adopted {
            topics: adoption.to,
            claims_from: adoption.claims_from,
            numbers: adoption.numbers,
        };
        self.append(BTreeMap::new(), adopted, why)
    }

    fn settle(
        &mut self,
        declaration: &Declaration,
        refused: Option<String>,
        why: &str,
    ) -> Result<(), ClientError> {
        let view = declaration.definition.view.clone();
        let revision = self.state.catalog().revision(&view);
        let views = BTreeMap::from([(view.clone(), revision)]);
        let declaration = declaration.digest.clone();
        let declared = Body::Declared {
            view,
            declaration,
            refused,
        };
        self.append(views, declared, why)
    }

    fn append(
        &mut self,
        views: BTreeMap<ViewName, u64>,
        body: Body,
        why: &str,
    ) -> Result<(), ClientError> {
        let event = self.event(views, body, why);
        let appended = append(&mut *self.log, &mut self.state, &event, &mut self.new_id)?;
        match appended.verdict {
            Verdict::Accepted => Ok(()),
            Verdict::Stale(view) => Err(ClientError::Overtaken(view)),
            Verdict::Newer | Verdict::TooEarly | Verdict::TooLate | Verdict::Misplaced => {
                let at = self.state.catalog().known_to();
                Err(ClientError::Newer(at.0))
            }
        }
    }

    fn event(&mut self, views: BTreeMap<ViewName, u64>, body: Body, why: &str) -> Envelope {
        Envelope {
            schema: SCHEMA,
            id: (self.new_id)(),
            views,
            not_before: None,
            not_after: NEVER,
            who: self.who.clone(),
            why: why.to_owned(),
            answers: None,
            body,
        }
    }
}

fn outcome_of(answer: &Answer) -> Outcome {
    match answer.clone() {
        Answer::Done { gates: _ } => Outcome::Done,
        Answer::Nothing(why) => Outcome::Nothing(why),
        Answer::Refused { why, hint, gates } => {
            if failing(&gates, &BTreeSet::new()).is_empty() {
                Outcome::Refused { why, hint }
            } else {
                Outcome::GateFailed { why, hint, gates }
            }
        }
    }
}

/// Returns the fact that carries a plan to start a version out; `None` for another plan.
pub(crate) fn started(plan: &Plan, verb: &Verb) -> Option<Started> {
    let (
        Plan::Start {
            version, replaces, ..
        },
        Verb::Apply {
            definition,
            fingerprint,
            because,
            replace: _,
            rebuild: _,
        },
    ) = (plan, verb)
    else {
        return None;
    };
    Some(Started {
        version: version.clone(),
        shards: definition.to.shards(),
        definition: definition.clone(),
        fingerprint: fingerprint.clone(),
        because: because.clone(),
        replaces: *replaces,
    })
}
