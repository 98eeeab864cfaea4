//! The world of one seed: the log, the sink's server, the workers that follow each other, and time.

use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use materializer_model::definition::OnError;
use materializer_model::memory::StoreImage;
use materializer_model::ports::{ControlLog, ControlTopic};
use materializer_model::progress::{Claim, Directive, Feed, Health, Progress, StoredCheckpoint};
use materializer_model::{
    CatalogId, Checkpoint, ClaimId, Offset, Skips, Token, Topic, Unit, ViewDefinition, WorkerId,
};
use materializer_replay::{Step, Worker};

use crate::History;
use crate::chaos::{Crash, Doom, Fate, Life, Shared};
use crate::servers::{Servers, Stored, definition};
use crate::upstream::Upstream;

/// A worker that is alive, whoever owns the unit.
pub(crate) struct Actor {
    pub(crate) worker: Worker,
    life: Life,
    claim_offset: Offset,
}

/// Everything that one seed has made.
pub(crate) struct World {
    pub(crate) shared: Shared,
    pub(crate) upstream: Upstream,
    pub(crate) servers: Servers,
    pub(crate) unit: Unit,
    images: Vec<StoreImage>,
    pub(crate) actors: Vec<Actor>,
    started: u64,
    pub(crate) directive: Directive,
    /// What the store held when the workers stayed away for too long.
    pub(crate) left_behind: Option<Checkpoint>,
    /// The claim under which the last report was made.
    reported_by: Offset,
    /// The claim of the last owner that the store was seen to have.
    owned_by: Option<u64>,
    definition: Arc<ViewDefinition>,
    /// The ends at the time of each step, before any of them a bar may have been taken.
    pub(crate) bars: BTreeSet<Vec<u64>>,
}

impl World {
    pub(crate) fn new(history: &History) -> Self {
        let shared = Shared::new(history);
        let servers = Servers::new();
        let upstream = Upstream::new(&shared, &servers);
        let on_error = if shared.chance(500) {
            OnError::Skip
        } else {
            OnError::DeadLetter {
                topic: Topic::new("dead"),
                limit: 1_000,
            }
        };
        let shard = shared.below(u64::from(upstream.shards));
        let unit: Unit = format!("v/v1/c0/s{shard}").parse().expect("a unit");
        let view = unit.version.view.clone();
        let definition = definition(view, &upstream.topic, upstream.shards, on_error.clone());
        Self {
            shared,
            upstream,
            servers,
            unit,
            images: Vec::new(),
            actors: Vec::new(),
            started: 0,
            directive: Directive {
                feed: Feed::Feed,
                skips: Skips::default(),
                on_error,
                gates: definition.gates.clone(),
                last_reported: None,
                has_data: false,
                growths: Vec::new(),
            },
            left_behind: None,
            reported_by: Offset(0),
            owned_by: None,
            definition: Arc::new(definition),
            bars: BTreeSet::new(),
        }
    }

    /// Says whether any partition is the unit's.
    pub(crate) fn reads_something(&self) -> bool {
        self.upstream.partitions > i32::from(self.unit.shard)
    }

    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.shared.below(bound)
    }

    pub(crate) fn note(&self, line: String) {
        self.shared.note(line);
    }

    // ------------------------------------------------------------ the sink's server

    /// Keeps an image of the store, once it holds a commit: one without is a loss, not a lag.
    pub(crate) fn save(&mut self) {
        if self.servers.store.checkpoint(&self.unit).is_some() {
            self.images.push(self.servers.store.image());
        }
    }

    /// A replica that lagged takes over: what was on its way to the old server is lost.
    pub(crate) fn rewind(&mut self) {
        if self.images.is_empty() {
            return;
        }
        let at = self.shared.index(self.images.len());
        self.note(format!("the store goes back to image {at}"));
        self.images.truncate(at + 1);
        self.servers.store.restore(self.images[at].clone());
        self.owned_by = None;
        self.shared.lock().late.clear();
    }

    pub(crate) fn flush(&mut self) {
        self.note("the store is flushed".into());
        self.images.clear();
        self.shared.lock().late.clear();
        self.servers.store.clear();
        self.owned_by = None;
    }

    /// Builds the unit once more, from the beginning.
    pub(crate) fn rebuild(&mut self) {
        self.note("another version is built".into());
        self.flush();
        self.actors.clear();
        self.directive.last_reported = None;
        self.start();
    }

    pub(crate) fn stored(&self) -> Stored {
        self.servers.stored(&self.unit)
    }

    /// Looks who owns the unit: by a claim that is no older than that of the owner before.
    pub(crate) fn check_owner(&mut self) -> Result<(), String> {
        let owner = self.servers.store.owner(&self.unit);
        let owner = owner.map(|token| token.claim_offset);
        if owner < self.owned_by {
            let before = self.owned_by;
            return Err(format!(
                "the owner's claim fell from {before:?} to {owner:?}"
            ));
        }
        self.owned_by = owner;
        Ok(())
    }

    // ------------------------------------------------------------ the workers

    /// Claims the unit for a new worker, whoever has it.
    pub(crate) fn start(&mut self) {
        self.started += 1;
        let name = format!("w{}", self.started);
        let key = self.unit.to_string();
        let claim = Claim {
            claim: ClaimId::new(name.clone()),
            worker: WorkerId::new(name.clone()),
            address: None,
        };
        let value = serde_json::to_vec(&claim).expect("serialises");
        let claim_offset = self
            .servers
            .control
            .log()
            .append(ControlTopic::Claims, Some(&key), Some(&value))
            .expect("memory");
        let token = Token {
            catalog: CatalogId::new("catalog"),
            claim_offset: claim_offset.0,
            claim: claim.claim,
        };
        self.note(format!("{name} claims the unit"));
        let life = Life::new(&name, &self.shared, Arc::new(|_| {}));
        let worker = self.servers.worker(
            &life,
            &self.unit,
            token,
            0,
            Arc::clone(&self.definition),
            self.servers.clock(&self.shared),
        );
        self.actors.push(Actor {
            worker,
            life,
            claim_offset,
        });
    }

    /// A leader is elected that lacks something; in some histories no worker lives to see it.
    pub(crate) fn cut(&mut self) {
        if self.shared.chance(500) {
            self.actors.clear();
        }
        self.upstream.cut(&self.stored());
    }

    /// All workers are gone for longer than tombstones are kept, and the cleaner takes them.
    pub(crate) fn stay_away(&mut self) {
        self.note("nobody is there for a day".into());
        self.upstream.end_transaction();
        self.actors.clear();
        self.shared.lock().late.clear();
        self.left_behind = self.servers.store.checkpoint(&self.unit);
        // Whoever had read everything would have missed nothing.
        while self
            .left_behind
            .as_ref()
            .is_some_and(|at| self.upstream.is_at_end(&self.unit, at))
        {
            self.upstream.produce();
        }
        let day = Duration::from_secs(25 * 60 * 60);
        self.servers.clock.advance(day);
        self.upstream.drop_tombstones();
    }

    pub(crate) fn pause_or_resume(&mut self) {
        match self.directive.feed {
            Feed::Feed => {
                self.directive.feed = Feed::Hold {
                    why: "a look".into(),
                }
            }
            Feed::Hold { .. } | Feed::Drain | Feed::Delete => self.resume(),
        }
    }

    pub(crate) fn resume(&mut self) {
        self.directive.feed = Feed::Feed;
    }

    /// Lets one of the workers crash some port calls later.
    pub(crate) fn doom(&mut self) {
        if self.actors.is_empty() {
            return;
        }
        let at = self.shared.index(self.actors.len());
        let points = self.below(40);
        self.actors[at].life.doom(Some(Doom {
            points,
            only: None,
            fate: Fate::Crash,
        }));
    }

    /// Steps one of the workers; one that crashes, or is fenced, is gone.
    pub(crate) fn step(&mut self) {
        if self.actors.is_empty() {
            return;
        }
        let at = self.shared.index(self.actors.len());
        let before = self.upstream.stable_ends();
        self.bars.insert(before);
        let directive = self.directive.clone();
        let actor = &mut self.actors[at];
        let name = actor.life.name.clone();
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| actor.worker.step(&directive)));
        match outcome {
            Ok(Step::Fenced(by)) => {
                self.note(format!("{name} is fenced by {by}"));
                self.actors.remove(at);
            }
            Ok(Step::Again | Step::Wait(_)) => {}
            Err(unwound) if unwound.is::<Crash>() => {
                self.actors.remove(at);
            }
            Err(unwound) => panic::resume_unwind(unwound),
        }
    }

    /// Publishes how the newest worker is, as a reader of the progress topic takes it.
    pub(crate) fn report(&mut self) {
        let Some(actor) = self.actors.iter().max_by_key(|actor| actor.claim_offset) else {
            return;
        };
        if actor.claim_offset < self.reported_by {
            return;
        }
        let progress = actor.worker.progress();
        if let Some(reported) = progress.checkpoint {
            self.reported_by = actor.claim_offset;
            self.directive.last_reported = Some(reported);
        }
    }

    /// Records the growth that the newest worker reports, as the coordinator does.
    pub(crate) fn record_growth(&mut self) {
        let growth = self.progress().and_then(|progress| progress.growth);
        if let Some(growth) = growth.filter(|_| self.directive.growths.is_empty()) {
            self.note(format!("recorded: {growth:?}"));
            self.directive.growths.push(growth);
        }
    }

    /// Returns how the owner of the newest claim is, if it is alive.
    pub(crate) fn progress(&self) -> Option<Progress> {
        let newest = self
            .actors
            .iter()
            .find(|actor| actor.claim_offset.0 + 1 == self.started)?;
        Some(newest.worker.progress())
    }

    pub(crate) fn reported(&self) -> Option<&Checkpoint> {
        self.directive
            .last_reported
            .as_ref()
            .map(|StoredCheckpoint(at)| at)
    }

    pub(crate) fn health(&self) -> Option<Health> {
        self.progress().map(|progress| progress.health)
    }
}
