//! A world of memory doubles: control topics, a sink, workers that report what they are told to, a
//! gateway, coordinators. Time moves by [`World::tick`] alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use materializer_migrations::adoption::Found;
use materializer_migrations::client::{CatalogClient, Outcome};
use materializer_migrations::coordinator::{
    Coordinator, CoordinatorError, Settings, Stepped, ViewSinks,
};
use materializer_migrations::desired::desired;
use materializer_migrations::gates::CONTINUOUS;
use materializer_migrations::reports::GatewayReport;
use materializer_migrations::status::Status;
use materializer_migrations::{Adoption, Follower, Role, Verb};
use materializer_model::definition::{QueryGate, Target};
use materializer_model::memory::{ManualClock, MemoryAdmin, MemoryControl, MemoryStore};
use materializer_model::ports::{
    ControlLog, ControlRecord, ControlTopic, Expect, Sink, SinkAdmin, SinkError,
};
use materializer_model::progress::{
    Claim, Feed, GateReading, Health, Lag, Phase, Progress, StoredCheckpoint,
};
use materializer_model::{
    Checkpoint, ClaimId, EventId, Growth, Offset, ProcessId, Timestamp, Token, Unit, VersionId,
    ViewDefinition, WorkerId,
};

use crate::sample::{ids, version, view};

pub(crate) const TICK: Duration = Duration::from_millis(500);
pub(crate) const DRAIN: Duration = Duration::from_secs(20);

/// What a worker says of every unit of a version.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) health: Health,
    pub(crate) lag_records: u64,
    pub(crate) held_ms: Option<u64>,
    pub(crate) documents: Option<u64>,
    pub(crate) silent: bool,
    pub(crate) checkpoint: Option<Checkpoint>,
    /// Whether it reports under a claim that is not the newest.
    pub(crate) zombie: bool,
    /// How many copies, the first ones, have lost their data.
    pub(crate) damaged_copies: u16,
    pub(crate) growth: Option<Growth>,
}

impl Default for Said {
    fn default() -> Self {
        Self {
            health: Health::Ok,
            lag_records: 3,
            held_ms: Some(150_000),
            documents: Some(100),
            silent: false,
            checkpoint: None,
            zombie: false,
            damaged_copies: 0,
            growth: None,
        }
    }
}

struct Sinks {
    admin: MemoryAdmin,
    down: Arc<AtomicBool>,
}

impl ViewSinks for Sinks {
    fn admin(
        &mut self,
        definition: &ViewDefinition,
    ) -> Result<Option<&mut dyn SinkAdmin>, SinkError> {
        if self.down.load(Ordering::Relaxed) {
            return Err(SinkError::Unavailable("no route to the sink".into()));
        }
        match definition.to {
            Target::Memory {} | Target::Redis(_) => Ok(Some(&mut self.admin)),
            Target::Tantivy(_) => Ok(None),
        }
    }

    fn hits(&mut self, query: &QueryGate, _: &[(Unit, String)]) -> Result<u64, SinkError> {
        let hits = query.q.strip_prefix("hits:").map(str::parse);
        hits.and_then(Result::ok)
            .ok_or_else(|| SinkError::Refused("no such query".into()))
    }
}

pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) control: MemoryControl,
    pub(crate) store: MemoryStore,
    pub(crate) coordinators: Vec<Coordinator>,
    pub(crate) client: CatalogClient,
    /// What the workers say, by version number; whoever is not named says that all is well.
    pub(crate) said: BTreeMap<u32, Said>,
    /// Whether the gateway reads on and reports.
    pub(crate) gateway: bool,
    down: Arc<AtomicBool>,
    restarts: u32,
    workers: Follower,
    routes: Follower,
    sequence: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = ManualClock::new(Timestamp(1_000_000));
        let control = MemoryControl::new("main", clock.clone());
        let client = CatalogClient::create(Box::new(control.log()), "ada", ids("client"))
            .expect("a catalog is created");
        let mut world = Self::over(clock, control, MemoryStore::default(), client);
        world.add_coordinator("c1");
        world
    }

    /// A world in which nobody decides yet.
    fn over(
        clock: ManualClock,
        control: MemoryControl,
        store: MemoryStore,
        client: CatalogClient,
    ) -> Self {
        Self {
            clock,
            control,
            store,
            coordinators: Vec::new(),
            client,
            said: BTreeMap::new(),
            gateway: true,
            down: Arc::default(),
            restarts: 0,
            workers: Follower::default(),
            routes: Follower::default(),
            sequence: 0,
        }
    }

    /// Returns every event of the catalog.
    pub(crate) fn events(&self) -> Vec<ControlRecord> {
        let mut events = Vec::new();
        let mut log = self.control.log();
        log.read(ControlTopic::Catalog, Offset(0), &mut events)
            .expect("memory answers");
        events
    }

    /// Loses the control topics, restores the events of a backup into others, and binds them to the
    /// sink, which is as it was. Returns what was told before that.
    pub(crate) fn restored(self, backup: &[ControlRecord]) -> (Self, Adoption) {
        let clock = ManualClock::new(Timestamp(0));
        let control = MemoryControl::new("restored", clock.clone());
        let mut log = control.log();
        log.create().expect("memory answers");
        for event in backup {
            clock.advance(event.appended.since(clock.now()));
            log.append(ControlTopic::Catalog, None, event.value.as_deref())
                .expect("memory answers");
        }
        clock.advance(self.clock.now().since(clock.now()));
        let log = Box::new(control.log());
        let client = CatalogClient::open_unbound(log, "ada", ids("adopter")).expect("opened");
        let mut world = Self::over(clock, control, self.store, client);
        let now = world.client.now().expect("memory answers");
        let topics = world.control.log().identity().expect("memory answers");
        let adoption = Adoption::plan(
            world.client.state(),
            topics.expect("made above"),
            &[found(&world.store)],
            now,
        );
        world.client.adopt(adoption.clone(), "").expect("adopted");
        world.add_coordinator("c2");
        (world, adoption)
    }

    /// Returns another process's hand on the catalog, read up to now.
    pub(crate) fn other_client(&self, who: &str) -> CatalogClient {
        let log = Box::new(self.control.log());
        CatalogClient::open(log, who, ids(who)).expect("it is there")
    }

    pub(crate) fn add_coordinator(&mut self, name: &str) {
        let coordinator = self.coordinator(name, Box::new(self.control.log()));
        self.coordinators.push(coordinator);
    }

    pub(crate) fn coordinator(&self, name: &str, log: Box<dyn ControlLog>) -> Coordinator {
        let sinks = Sinks {
            admin: self.store.admin(),
            down: self.down.clone(),
        };
        let settings = Settings {
            name: name.to_owned(),
            process: ProcessId::new(format!("process of {name}")),
            drain: DRAIN,
        };
        let clock = Arc::new(self.clock.clone());
        Coordinator::new(log, Box::new(sinks), clock, ids(name), settings)
    }

    /// Lets half a second pass: workers and the gateway report, then every coordinator steps until
    /// it is idle.
    pub(crate) fn tick(&mut self) {
        self.clock.advance(TICK);
        self.workers_report();
        if self.gateway {
            self.gateway_reports();
        }
        for index in 0..self.coordinators.len() {
            self.step(index);
        }
        self.client.refresh().expect("the client reads on");
    }

    /// Steps a coordinator three times at most, or until it is idle. One that meets a fault is
    /// restarted: it dies there, and another process begins.
    fn step(&mut self, index: usize) {
        for _ in 0..3 {
            match self.coordinators[index].step() {
                Ok(Stepped::Busy) => self.clock.advance(Duration::from_millis(1)),
                Ok(Stepped::Idle) => return,
                Err(CoordinatorError::Unavailable(_)) => {
                    self.restarts += 1;
                    assert!(self.restarts < 3, "faults where none were set");
                    let name = format!("next-{}", self.restarts);
                    let next = self.coordinator(&name, Box::new(self.control.log()));
                    self.coordinators[index] = next;
                    return;
                }
                Err(CoordinatorError::Stopped(why)) => panic!("stopped: {why}"),
            }
        }
    }

    /// Cuts the sink off from every coordinator, or back in.
    pub(crate) fn sink_is_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    pub(crate) fn ticks(&mut self, count: u32) {
        for _ in 0..count {
            self.tick();
        }
    }

    /// Lets time pass until something is so, for at most two hours.
    pub(crate) fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        for _ in 0..14_400 {
            if so(self) {
                return;
            }
            self.tick();
        }
        panic!("never so: {what}\n{:#?}", self.status());
    }

    pub(crate) fn status(&self) -> Status {
        Status::at(self.client.state(), self.clock.now())
    }

    /// Asks for what the plan says, and waits for the answer as the command line does.
    pub(crate) fn ask(&mut self, verb: Verb) -> Outcome {
        let plan = self.client.plan(&verb).expect("a plan");
        let request = self.client.ask(verb, plan, "a test").expect("asked");
        self.answer(&request)
    }

    pub(crate) fn answer(&mut self, request: &EventId) -> Outcome {
        let mut waited = Duration::ZERO;
        loop {
            if let Some(outcome) = self.client.outcome(request, waited) {
                return outcome;
            }
            self.tick();
            waited += TICK;
        }
    }

    pub(crate) fn role(&self, number: u32) -> Option<Role> {
        let catalog = self.client.state().catalog();
        catalog.version(&version(number)).map(|v| v.role)
    }

    /// The versions that the alias names: in the catalog, and in the sink.
    pub(crate) fn alias(&self) -> (Option<u32>, Option<u32>) {
        let catalog = self.client.state().catalog();
        let live = catalog.view(&view()).and_then(|v| v.alias.as_ref());
        let stored = self.store.admin().alias(&view()).expect("memory answers");
        (
            live.map(|alias| alias.version.0),
            stored.map(|p| p.version.0),
        )
    }

    fn workers_report(&mut self) {
        let mut log = self.control.log();
        self.workers.follow(&mut log).expect("the workers read on");
        let directives = desired(
            self.workers.catalog(),
            self.workers.reports(),
            &WorkerId::new("worker"),
        );
        for (unit, directive) in directives {
            let said = self
                .said
                .get(&unit.version.number.0)
                .cloned()
                .unwrap_or_default();
            if said.silent {
                continue;
            }
            let key = unit.to_string();
            if directive.feed == Feed::Delete {
                log.append(ControlTopic::Progress, Some(&key), None)
                    .expect("appended");
                continue;
            }
            let token = self.claim(&unit);
            self.sequence += 1;
            let progress = progress(unit, token, self.sequence, &said);
            let value = serde_json::to_vec(&progress).expect("serialises");
            log.append(ControlTopic::Progress, Some(&key), Some(&value))
                .expect("appended");
        }
    }

    /// Returns the unit's token; claims it and opens it in the sink where nobody has.
    fn claim(&mut self, unit: &Unit) -> Token {
        let mut log = self.control.log();
        let claim = Claim {
            claim: ClaimId::new("claim"),
            worker: WorkerId::new("worker"),
            address: None,
        };
        let is_claimed = self.workers.reports().claim(unit).is_some();
        if !is_claimed {
            let value = serde_json::to_vec(&claim).expect("serialises");
            log.append(ControlTopic::Claims, Some(&unit.to_string()), Some(&value))
                .expect("appended");
            self.workers.follow(&mut log).expect("the workers read on");
        }
        let (token, _) = self.workers.owner(unit).expect("claimed above");
        if !is_claimed {
            let mut sink = self.store.sink(unit);
            sink.open(&token, Expect::Maybe).expect("nobody else's");
        }
        token
    }

    fn gateway_reports(&mut self) {
        let mut log = self.control.log();
        self.routes.follow(&mut log).expect("the gateway reads on");
        self.sequence += 1;
        let report = GatewayReport {
            process: ProcessId::new("gateway process"),
            sequence: self.sequence,
            folded: self.routes.catalog().known_to(),
            address: None,
        };
        let value = serde_json::to_vec(&report).expect("serialises");
        log.append(ControlTopic::Progress, Some("gateway/g1"), Some(&value))
            .expect("appended");
    }
}

/// What the sink tells of the first versions.
fn found(store: &MemoryStore) -> Found {
    let mut found = Found {
        place: "memory".to_owned(),
        ..Found::default()
    };
    let alias = store.admin().alias(&view()).expect("memory answers");
    found.aliases.extend(alias.map(|pointer| (view(), pointer)));
    for number in 1..10 {
        let unit = Unit {
            version: version(number),
            copy: 0,
            shard: 0,
        };
        if let Some(token) = store.owner(&unit) {
            found.claimed.insert(unit.version, token.claim_offset);
        }
    }
    found
}

/// Claims every unit of a version and reports once of each.
pub(crate) fn report(log: &mut dyn ControlLog, id: &VersionId, said: &Said) {
    let unit = Unit {
        version: id.clone(),
        copy: 0,
        shard: 0,
    };
    let key = unit.to_string();
    let claim = Claim {
        claim: ClaimId::new("claim"),
        worker: WorkerId::new("worker"),
        address: None,
    };
    let value = serde_json::to_vec(&claim).expect("serialises");
    let at = log
        .append(ControlTopic::Claims, Some(&key), Some(&value))
        .expect("appended");
    let token = Token {
        catalog: materializer_model::CatalogId::new("catalog"),
        claim_offset: at.0,
        claim: claim.claim,
    };
    let value = serde_json::to_vec(&progress(unit, token, 1, said)).expect("serialises");
    log.append(ControlTopic::Progress, Some(&key), Some(&value))
        .expect("appended");
}

pub(crate) fn progress(unit: Unit, token: Token, sequence: u64, said: &Said) -> Progress {
    let reading = |gate: &&str| GateReading {
        gate: (*gate).to_owned(),
        holds: said.held_ms.is_some(),
        reading: format!("{gate} as said"),
    };
    let token = if said.zombie {
        Token {
            claim: ClaimId::new("older"),
            ..token
        }
    } else {
        token
    };
    let is_damaged = unit.copy < said.damaged_copies;
    let lag = Lag {
        records: said.lag_records,
        seconds: 0.5,
        estimated: false,
    };
    Progress {
        unit,
        worker: WorkerId::new("worker"),
        process: ProcessId::new("worker process"),
        sequence,
        token,
        checkpoint: said.checkpoint.clone().map(StoredCheckpoint),
        until: None,
        phase: Phase::Tailing,
        health: if is_damaged {
            Health::Damaged { why: "lost".into() }
        } else {
            said.health.clone()
        },
        lag: (!is_damaged).then_some(lag),
        ends_age_ms: Some(200),
        end_records: 1_000,
        done_records: 1_000 - said.lag_records.min(1_000),
        held_ms: said.held_ms,
        gates: CONTINUOUS.iter().map(reading).collect(),
        servable: true,
        rate: 10.0,
        waits_for: None,
        documents: said.documents.filter(|_| !is_damaged),
        bytes: None,
        bytes_free: None,
        tombstones_left_ms: None,
        address: Some("127.0.0.1:9".to_owned()),
        growth: said.growth.clone(),
    }
}
