//! The world of one migration's history: the servers, a seat for each process, and time.
//!
//! One loop lets one thing happen after the other. While a process works, its seat is empty; where it
//! falls asleep between two port calls, the loop goes on inside of it, and so the others do.

use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use materializer_migrations::{CatalogClient, Coordinator, CoordinatorError, Follower, Settings};
use materializer_model::memory::StoreImage;
use materializer_model::ports::{ControlLog, ControlRecord};
use materializer_model::{EventId, Offset, ProcessId, Unit, VersionId};

use super::control::{DECIDED, SimControl};
use super::gateway::Gateway;
use super::operator::Operator;
use super::pool::Pool;
use super::restore;
use super::sinks::{MOVED, SimSinks};
use super::trouble::Trouble;
use super::views::view;
use super::witness::{DRAIN, Witness};
use crate::History;
use crate::chaos::{Crash, Doom, Fate, Life, Meanwhile, Shared};
use crate::servers::Servers;
use crate::upstream::Upstream;

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Coordinator,
    Pool,
    Gateway,
    Operator,
}

/// The seats, each with the name that a process keeps over its restarts.
const SEATS: [(Kind, &str); 7] = [
    (Kind::Coordinator, "c1"),
    (Kind::Coordinator, "c2"),
    (Kind::Pool, "w1"),
    (Kind::Pool, "w2"),
    (Kind::Gateway, "g"),
    (Kind::Operator, "ada"),
    (Kind::Operator, "bob"),
];

/// How often each seat but the operators' is picked: workers have the most to do.
const PICKS: [usize; 13] = [0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4];
/// The number of the event in which trouble comes: no other has it.
const TROUBLE: u64 = u64::MAX;

/// The seats of the operators, who do little.
const OPERATORS: [usize; 2] = [5, 6];

enum Process {
    Coordinator(Box<Coordinator>),
    Pool(Box<Pool>),
    Gateway(Box<Gateway>),
    Operator(Box<Operator>),
}

pub(super) struct Actor {
    life: Life,
    process: Process,
}

impl Actor {
    /// Does its next bit of work. Faults of servers are its daily life.
    ///
    /// # Errors
    /// Where a coordinator decides nothing any more.
    fn step(&mut self) -> Result<(), String> {
        match &mut self.process {
            Process::Coordinator(coordinator) => match coordinator.step() {
                Ok(_) | Err(CoordinatorError::Unavailable(_)) => Ok(()),
                Err(CoordinatorError::Stopped(why)) => Err(why),
            },
            Process::Pool(pool) => {
                pool.step();
                Ok(())
            }
            Process::Gateway(gateway) => gateway.step().or(Ok(())),
            Process::Operator(operator) => operator.step().or(Ok(())),
        }
    }

    /// Says whether it is a coordinator that has not read a catalog yet.
    fn knows_no_catalog(&self) -> bool {
        match &self.process {
            Process::Coordinator(coordinator) => coordinator.state().catalog().id().is_none(),
            Process::Pool(_) | Process::Gateway(_) | Process::Operator(_) => false,
        }
    }
}

enum Seat {
    /// Nobody: the next time it is picked, a process is started.
    Vacant,
    /// A process that works, or sleeps in the middle of it.
    Away,
    Here(Actor),
}

pub(super) struct World {
    pub(super) shared: Shared,
    pub(super) servers: Servers,
    pub(super) upstream: Upstream,
    pub(super) witness: Witness,
    pub(super) trouble: Trouble,
    /// When trouble that comes once is due: with so many events left. `None` once it was there.
    due: Option<u64>,
    images: Vec<StoreImage>,
    /// The catalog as it was when somebody last made a backup.
    backup: Vec<ControlRecord>,
    is_restored: bool,
    seats: Vec<Seat>,
    started: u64,
    /// The coordinators that said last that they decide nothing.
    pub(super) stopped: BTreeSet<usize>,
    /// How many more things happen before it is calm.
    pub(super) events_left: u64,
    /// The first promise that was broken.
    pub(super) broken: Option<String>,
}

/// The world, as everybody reaches it. Nobody holds it while a process works.
#[derive(Clone)]
pub(super) struct Stage(Arc<Mutex<World>>);

impl Stage {
    pub(super) fn new(history: &History, events: u64) -> Self {
        let shared = Shared::new(history);
        let mut servers = Servers::new();
        if shared.chance(400) {
            servers.part_keys = 2;
        }
        let upstream = Upstream::new(&shared, &servers);
        let trouble = Trouble::choose(&shared);
        let due = events / 4 + shared.below(events / 2);
        let witness = Witness::new(&shared, &servers, trouble);
        Self(Arc::new(Mutex::new(World {
            shared,
            servers,
            upstream,
            witness,
            trouble,
            due: Some(due).filter(|_| trouble.comes_once()),
            images: Vec::new(),
            backup: Vec::new(),
            is_restored: false,
            seats: SEATS.iter().map(|_| Seat::Vacant).collect(),
            started: 0,
            stopped: BTreeSet::new(),
            events_left: events,
            broken: None,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("crashes hold no lock")
    }

    /// Lets one thing happen, and looks.
    pub(super) fn happen(&self) {
        let (shared, left) = {
            let mut world = self.lock();
            let Some(left) = world.events_left.checked_sub(1) else {
                return;
            };
            world.events_left = left;
            if world.broken.is_some() {
                return;
            }
            if world.due.is_some_and(|due| left <= due) {
                world.trouble_comes();
            }
            (world.shared.clone(), left)
        };
        shared.event(left, || self.event());
    }

    fn event(&self) {
        let mut world = self.lock();
        match world.shared.below(1_000) {
            0..100 => world.upstream.produce(),
            100..110 => world.upstream.begin(),
            110..130 => world.upstream.end_transaction(),
            130..140 => world.upstream.compact(),
            140..150 => world.upstream.elect(),
            150..250 => world.pass(),
            250..270 => world.shared.arrive(),
            270..290 => world.doom(),
            290..294 if world.trouble == Trouble::SinkLoses => world.save(),
            294..298 => world.trouble_goes_on(),
            event => {
                let at = if event < 320 {
                    OPERATORS[world.shared.index(OPERATORS.len())]
                } else {
                    PICKS[world.shared.index(PICKS.len())]
                };
                drop(world);
                self.turn(at);
                world = self.lock();
            }
        }
        world.look();
    }

    /// Lets the process of a seat do its next bit of work. One that crashes leaves its seat.
    pub(super) fn turn(&self, at: usize) {
        let taken = std::mem::replace(&mut self.lock().seats[at], Seat::Away);
        let mut actor = match taken {
            Seat::Away => return,
            Seat::Here(actor) => actor,
            Seat::Vacant => match self.start(at) {
                Some(actor) => actor,
                None => {
                    self.lock().seats[at] = Seat::Vacant;
                    return;
                }
            },
        };
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| actor.step()));
        let mut world = self.lock();
        match outcome {
            Ok(Ok(())) => {
                world.stopped.remove(&at);
                world.seats[at] = Seat::Here(actor);
            }
            Ok(Err(_)) if world.is_deciding_over() => {
                world.stopped.insert(at);
                world.seats[at] = Seat::Here(actor);
            }
            Ok(Err(why)) => {
                let name = &actor.life.name;
                world.broken = Some(format!("{name} gave up: {why}"));
            }
            Err(unwound) if unwound.is::<Crash>() => world.seats[at] = Seat::Vacant,
            Err(unwound) => panic::resume_unwind(unwound),
        }
    }

    /// Starts a new process in a seat; `None` where it did not get through to the servers.
    fn start(&self, at: usize) -> Option<Actor> {
        let (kind, name) = SEATS[at];
        let (life, servers, shards) = {
            let mut world = self.lock();
            if kind == Kind::Coordinator && world.catalog_is_missed() {
                world.stopped.insert(at);
                return None;
            }
            world.started += 1;
            let process = format!("{name}-{}", world.started);
            world.shared.note(format!("{process} starts"));
            let life = Life::new(&process, &world.shared, self.meanwhile());
            (life, world.servers.clone(), world.upstream.shards)
        };
        let control = SimControl {
            life: life.clone(),
            inner: servers.control.log(),
        };
        let clock = servers.clock(&life.shared);
        let process = match kind {
            Kind::Coordinator => Process::Coordinator(Box::new(Coordinator::new(
                Box::new(control),
                Box::new(SimSinks {
                    life: life.clone(),
                    store: servers.store.clone(),
                }),
                clock,
                ids(&life.name),
                Settings {
                    name: name.to_owned(),
                    process: ProcessId::new(life.name.clone()),
                    drain: DRAIN,
                },
            ))),
            Kind::Pool => Process::Pool(Box::new(Pool::new(name, &life, &servers, clock))),
            Kind::Gateway => Process::Gateway(Box::new(Gateway::new(control))),
            Kind::Operator => {
                let client = CatalogClient::open(Box::new(control), name, ids(&life.name)).ok()?;
                Process::Operator(Box::new(Operator::new(&life, client, shards)))
            }
        };
        Some(Actor { life, process })
    }

    /// What goes on while a process sleeps.
    fn meanwhile(&self) -> Meanwhile {
        let world: Weak<Mutex<World>> = Arc::downgrade(&self.0);
        Arc::new(move |events| {
            let stage = Self(world.upgrade().expect("processes end before the world"));
            for _ in 0..events {
                stage.happen();
            }
        })
    }

    /// Ends all faults: nothing crashes, sleeps, fails or is late any more.
    pub(super) fn calm(&self) {
        let mut world = self.lock();
        world.shared.calm();
        for seat in &world.seats {
            if let Seat::Here(actor) = seat {
                actor.life.doom(None);
            }
        }
        if world.is_deciding_over() {
            // Whoever begins now must see it, too.
            world.stopped.clear();
            world.seats.iter_mut().for_each(|seat| *seat = Seat::Vacant);
        }
        world.servers.control.set_ahead(0);
        world.upstream.end_transaction();
        world.upstream.grow_back();
        while !world.shared.lock().late.is_empty() {
            world.shared.arrive();
            world.look();
        }
    }

    /// Lets a fifth of a second pass in which every process but the operators works.
    pub(super) fn tick(&self) {
        self.lock()
            .servers
            .clock
            .advance(Duration::from_millis(200));
        for (at, (kind, _)) in SEATS.iter().enumerate() {
            let times = match kind {
                Kind::Coordinator | Kind::Gateway => 1,
                Kind::Pool => 8,
                Kind::Operator => 0,
            };
            for _ in 0..times {
                self.turn(at);
            }
        }
        self.lock().look();
    }

    /// Restores the catalog from its backup, which may be older than what the sink holds, and starts every
    /// process anew.
    pub(super) fn restore(&self) -> Result<(), String> {
        let mut world = self.lock();
        world.shared.note("the catalog is restored".into());
        restore::restore(&world.servers, &world.backup, world.witness.catalog())
            .map_err(|why| format!("adopt: {why}"))?;
        world.is_restored = true;
        world.seats.iter_mut().for_each(|seat| *seat = Seat::Vacant);
        world.witness.catalog_restored();
        Ok(())
    }

    /// Opens the catalog for one that asks by hand.
    pub(super) fn client(&self, who: &str) -> CatalogClient {
        let log: Box<dyn ControlLog> = Box::new(self.lock().servers.control.log());
        CatalogClient::open(log, who, ids(who)).expect("memory")
    }
}

impl World {
    fn pass(&mut self) {
        let span = match self.shared.below(100) {
            0..4 => 30_000,
            4..14 => 2_000,
            14..50 => 200,
            _ => 7,
        };
        self.servers.clock.advance(Duration::from_millis(span));
    }

    /// Lets the trouble come that comes once, with choices of its own.
    fn trouble_comes(&mut self) {
        let shared = self.shared.clone();
        shared.with_choices(TROUBLE, || {
            let (trouble, view) = (self.trouble, self.witness.catalog().view(&view()));
            let units: Vec<Unit> = view
                .into_iter()
                .flat_map(|view| view.versions.values())
                .flat_map(|version| version.units())
                .filter(|unit| self.servers.store.owner(unit).is_some())
                .collect();
            let has_come = match trouble {
                Trouble::None | Trouble::SinkLoses | Trouble::ClocksJump(_) => false,
                Trouble::Grown => {
                    self.upstream.grow();
                    true
                }
                Trouble::Recreated => {
                    self.upstream.recreate();
                    true
                }
                Trouble::Cut if units.is_empty() => false,
                Trouble::Cut => {
                    let unit = &units[shared.index(units.len())];
                    self.upstream.cut(&self.servers.stored(unit));
                    true
                }
                // Without a backup there is nothing to come back to.
                Trouble::CatalogCut | Trouble::CatalogReplaced if self.backup.is_empty() => false,
                Trouble::CatalogCut => self.cut_catalog(),
                // What a coordinator does that was about to begin a catalog is another history.
                Trouble::CatalogReplaced if units.is_empty() || self.is_anybody_away() => false,
                Trouble::CatalogReplaced => {
                    self.servers.control.renew();
                    for seat in &mut self.seats {
                        if matches!(seat, Seat::Here(actor) if actor.knows_no_catalog()) {
                            *seat = Seat::Vacant;
                        }
                    }
                    true
                }
            };
            if has_come {
                shared.note(format!("trouble: {trouble:?}"));
                self.due = None;
                self.witness.trouble_came();
            }
        });
    }

    /// Lets the trouble come that comes again and again; makes a backup before the one that needs it.
    fn trouble_goes_on(&mut self) {
        match self.trouble {
            Trouble::SinkLoses => self.fail_over(),
            Trouble::ClocksJump(most) => {
                let ahead = self.shared.below(2 * most + 1);
                let ahead =
                    i64::try_from(ahead).expect("small") - i64::try_from(most).expect("small");
                self.shared
                    .note(format!("the broker's clock is {ahead} ms ahead"));
                self.servers.control.set_ahead(ahead);
            }
            Trouble::CatalogCut | Trouble::CatalogReplaced if self.due.is_some() => {
                self.backup = restore::export(&self.servers);
            }
            Trouble::None
            | Trouble::Grown
            | Trouble::Cut
            | Trouble::Recreated
            | Trouble::CatalogCut
            | Trouble::CatalogReplaced => {}
        }
    }

    /// Cuts the catalog back to well below what somebody has said to have read of it; says whether there
    /// is as much.
    fn cut_catalog(&mut self) -> bool {
        let mut follower = Follower::default();
        if follower.follow(&mut self.servers.control.log()).is_err() {
            return false;
        }
        let reports = follower.reports();
        let gateways = reports.gateways().values().map(|heard| heard.report.folded);
        let coordinators = reports.coordinators().values();
        let read = gateways
            .chain(coordinators.map(|heard| heard.report.folded))
            .max();
        // Each process may have an append under way.
        let back = 10 + self.shared.below(20);
        let Some(to) = read
            .and_then(|read| read.0.checked_sub(back))
            .filter(|to| *to > 0)
        else {
            return false;
        };
        self.shared.lock().late.clear();
        self.servers.control.cut_back(Offset(to));
        true
    }

    fn is_anybody_away(&self) -> bool {
        self.seats.iter().any(|seat| matches!(seat, Seat::Away))
    }

    /// Says whether trouble was there after which nobody may decide before the catalog is restored.
    pub(super) fn is_deciding_over(&self) -> bool {
        self.trouble.ends_deciding() && self.due.is_none() && !self.is_restored
    }

    /// Says whether a process would begin a catalog where the sink knows of one, which it may not.
    fn catalog_is_missed(&self) -> bool {
        self.is_deciding_over() && restore::export(&self.servers).is_empty()
    }

    /// Says whether a version cannot be fed any more, whatever it says at the moment.
    pub(super) fn has_lost_data(&self, id: &VersionId) -> bool {
        let version = self.witness.catalog().version(id).into_iter();
        let mut units = version.flat_map(|version| version.units());
        let reads_lost = units.any(|unit| {
            let stored = self.servers.stored(&unit);
            let lost = |at| self.upstream.reads_lost(at) != Some(false);
            stored.checkpoint.as_ref().is_some_and(lost)
        });
        reads_lost || self.witness.has_damaged(id)
    }

    /// Says whether no coordinator decides anything.
    pub(super) fn has_stopped_deciding(&self) -> bool {
        let coordinators = SEATS.iter().filter(|(kind, _)| *kind == Kind::Coordinator);
        self.stopped.len() == coordinators.count()
    }

    /// Keeps what the sink holds, as a replica does that lags from here on.
    fn save(&mut self) {
        self.images.push(self.servers.store.image());
    }

    /// A replica that lags takes over, or an empty server does.
    fn fail_over(&mut self) {
        let at = self.shared.index(self.images.len() + 1);
        self.images.truncate(at + 1);
        let image = self.images.get(at).cloned();
        let what = image.as_ref().map_or("an empty server", |_| "a replica");
        self.shared.note(format!("{what} takes over"));
        self.servers.store.restore(image.unwrap_or_default());
        self.witness.sink_lost();
    }

    /// Lets one of the processes crash, or sleep, some port calls later.
    fn doom(&mut self) {
        let at = self.shared.index(self.seats.len());
        let fate = if self.shared.chance(500) {
            Fate::Crash
        } else {
            Fate::Sleep(1 << self.shared.below(10))
        };
        if let Seat::Here(actor) = &self.seats[at] {
            // What was decided before a sleep and is done after it is where most rules are needed.
            let only = match SEATS[at].0 {
                Kind::Coordinator => [None, Some(DECIDED), Some(MOVED)][self.shared.index(3)],
                Kind::Pool | Kind::Gateway | Kind::Operator => {
                    [None, Some(DECIDED)][self.shared.index(2)]
                }
            };
            let points = self.shared.below(if only.is_some() { 4 } else { 40 });
            actor.life.doom(Some(Doom { points, only, fate }));
        }
    }

    pub(super) fn look(&mut self) {
        if self.broken.is_none() {
            self.broken = self.witness.look(&mut self.upstream).err();
        }
    }
}

/// Returns ids that nobody else makes.
pub(super) fn ids(process: &str) -> Box<dyn FnMut() -> EventId + Send> {
    let process = process.to_owned();
    let mut last = 0;
    Box::new(move || {
        last += 1;
        EventId::new(format!("{process}/{last}"))
    })
}
