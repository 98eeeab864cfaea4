//! Which roles a process plays, and how it begins and ends.
//!
//! A process has one control thread, which reads the control topics several times a second and then lets
//! the pool and the signpost look at what is new. A coordinator has a thread and a follower of its own: what
//! it decides on is read when it decides. Ending is in order: readers are sent elsewhere, requests under
//! way are answered, units commit and report a last time, then the process ends.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use materializer_kafka::{Observer, Pace};
use materializer_migrations::reports::FollowError;
use materializer_migrations::{CatalogClient, Coordinator, CoordinatorError, Stepped, coordinator};
use materializer_model::ports::ControlError;
use materializer_model::{CatalogId, Clock, EventId, Topic};
use materializer_sinks::redis::{NewestAliases, ViewReads};
use tracing::{debug, error, info, warn};

use crate::access::Access;
use crate::admins::Admins;
use crate::beginning::begin_catalog;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::connect;
use crate::control::Control;
use crate::declared::Declarer;
use crate::feeders::LiveFeeders;
use crate::gateway::{self, Gateway, Limits, LocalCopies, RowReader};
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::pool::{self, Pool};
use crate::served::{Own, Signpost};
use crate::stop::Stop;

/// How often the control topics are read.
const ROUND_EVERY: Duration = Duration::from_millis(100);
/// How long a role waits before it tries again what failed.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How many threads read each Redis for readers.
const READERS: usize = 2;

/// The roles of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Roles {
    /// Whether it answers requests.
    pub(crate) coordinator: bool,
    /// Whether it feeds units.
    pub(crate) worker: bool,
    /// Whether it answers readers.
    pub(crate) gateway: bool,
}

/// Plays roles until the stop is set or a signal comes.
///
/// # Errors
/// Where a role cannot begin.
pub(crate) fn run(
    config: Config,
    roles: Roles,
    clock: SystemClock,
    stop: &Stop,
) -> anyhow::Result<()> {
    let interrupted = on_signals()?;
    let config = Arc::new(config);
    let identity = Identity::take(&config.data_dir)?;
    info!(worker = %identity.worker, installation = %config.installation, "starting");
    let Some((control, catalog)) = open_catalog(&config, roles, &clock, stop, &interrupted)? else {
        return Ok(());
    };
    let process = Process::start(config, identity, roles, clock, control, catalog, stop)?;
    process.play(&interrupted);
    Ok(())
}

/// Sets a flag at SIGTERM and SIGINT; a second one ends the process at once.
fn on_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        // The order matters: the first signal finds the flag unset.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&interrupted))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&interrupted)))
            .context("listen to signals")?;
    }
    Ok(interrupted)
}

/// Opens the catalog, waiting while what is in the way may pass; who decides begins it where there is
/// none. `None` where the process is to end before that.
fn open_catalog(
    config: &Config,
    roles: Roles,
    clock: &SystemClock,
    stop: &Stop,
    interrupted: &AtomicBool,
) -> anyhow::Result<Option<(Control, CatalogId)>> {
    let mut told = String::new();
    while !stop.is_set() && !interrupted.load(Ordering::Relaxed) {
        let fault = match try_catalog(config, roles, clock)? {
            Ok(opened) => return Ok(Some(opened)),
            Err(fault) => fault,
        };
        if !fault.may_pass() {
            return Err(fault).context("open the catalog");
        }
        if told != fault.to_string() {
            told = fault.to_string();
            warn!(why = %told, "waiting for the catalog");
        }
        stop.wait(RETRY_EVERY);
    }
    Ok(None)
}

/// Opens the catalog once; the inner error is one of the log, which may pass.
fn try_catalog(
    config: &Config,
    roles: Roles,
    clock: &SystemClock,
) -> anyhow::Result<Result<(Control, CatalogId), FollowError>> {
    if roles.coordinator {
        let clock: Arc<dyn Clock> = Arc::new(clock.clone());
        if let Err(fault) = begin_catalog(config, &clock)? {
            return Ok(Err(fault));
        }
    }
    let control = match Control::open(connect::control_log(config)?, Arc::new(clock.clone())) {
        Ok(control) => control,
        Err(fault) => return Ok(Err(fault)),
    };
    let id = control.state().follower.catalog().id().cloned();
    Ok(id.map(|id| (control, id)).ok_or(FollowError::Missing))
}

/// Returns a random id for an event.
pub(crate) fn new_event_id() -> EventId {
    EventId::new(uuid::Uuid::new_v4().to_string())
}

/// A process with its roles.
struct Process {
    control: Arc<Control>,
    access: Arc<Access>,
    clock: SystemClock,
    observer: Arc<Observer>,
    stop: Stop,
    pool: Option<Pool>,
    signpost: Option<Signpost>,
    gateway: Option<Gateway>,
    coordinator: Option<JoinHandle<()>>,
    /// The data folder is held until everything else has ended.
    _identity: Identity,
}

impl Process {
    fn start(
        config: Arc<Config>,
        identity: Identity,
        roles: Roles,
        clock: SystemClock,
        control: Control,
        catalog: CatalogId,
        stop: &Stop,
    ) -> anyhow::Result<Self> {
        let control = Arc::new(control);
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        if let Some(newest) = control.state().follower.reports().newest() {
            clock.consumed(newest);
        }
        let observer = connect::observer(&config, Arc::clone(&shared))?;
        let access = Arc::new(Access::open(config.access.clone()).context("open the ports")?);
        let copies = Arc::new(LocalCopies::default());
        let metrics = Arc::new(Metrics::new()?);
        let mut signpost = Signpost::new(
            Arc::clone(&control),
            Arc::clone(&shared),
            &identity.worker,
            identity.process.clone(),
            config.address(),
        );
        if roles.gateway {
            // Ready means that it can answer: nobody is listened to before there are routes.
            signpost.step(&control.state());
        }
        let gateway = Gateway::start(
            gateway::Settings {
                http: config.http,
                redis: roles.gateway.then_some(config.redis),
                limits: Limits {
                    reply_bytes: config.gateway.reply_size,
                    memory_bytes: config.gateway.memory,
                    ..Limits::default()
                },
            },
            gateway::Parts {
                catalog: catalog.clone(),
                access: Arc::clone(&access),
                routes: signpost.subscribe(),
                rows: row_readers(&config, &catalog)?,
                copies: Arc::clone(&copies),
                process: Arc::new(Own {
                    control: Arc::clone(&control),
                    clock: Arc::clone(&shared),
                    worker: identity.worker.clone(),
                    observer: observer.clone(),
                    stop: stop.clone(),
                }),
                metrics: Arc::clone(&metrics),
                clock: Arc::clone(&shared),
                seed: uuid::Uuid::new_v4().as_u64_pair().0,
            },
        )?;
        info!(http = %gateway.http_address(), redis = gateway.redis_address().map(display), "listening");
        let coordinator = roles
            .coordinator
            .then(|| start_coordinator(&config, &identity, &catalog, &access, &shared, stop))
            .transpose()?;
        let pool = roles.worker.then(|| {
            let settings = pool_settings(&config, &identity);
            let feeders = LiveFeeders {
                config: Arc::clone(&config),
                settings: settings.clone(),
                catalog: catalog.clone(),
                control: Arc::clone(&control),
                observer: Arc::clone(&observer),
                clock: Arc::clone(&shared),
                copies,
                metrics,
            };
            feeders.sweep(&control.state());
            Pool::new(
                settings,
                Arc::clone(&control),
                Arc::clone(&shared),
                Box::new(feeders),
                Box::new(|| uuid::Uuid::new_v4().as_u128()),
            )
        });
        Ok(Self {
            control,
            access,
            clock,
            observer,
            stop: stop.clone(),
            pool,
            signpost: roles.gateway.then_some(signpost),
            gateway: Some(gateway),
            coordinator,
            _identity: identity,
        })
    }

    /// Comes round until the stop, then ends everything in order.
    fn play(mut self, interrupted: &AtomicBool) {
        let mut unreadable = false;
        let mut lost = false;
        while !self.stop.is_set() {
            if interrupted.load(Ordering::Relaxed) {
                info!("told to end");
                break;
            }
            self.control.came_round();
            self.access.step(self.clock.monotonic());
            match self.control.refresh() {
                Ok(state) => {
                    if std::mem::take(&mut unreadable) {
                        info!("the control topics can be read again");
                    }
                    if let Some(newest) = state.follower.reports().newest() {
                        self.clock.consumed(newest);
                    }
                    if let Some(pool) = &mut self.pool {
                        pool.step(&state);
                        self.observer.watch(paces(pool.topics(&state)));
                    }
                    if let Some(signpost) = &mut self.signpost {
                        signpost.step(&state);
                    }
                }
                Err(fault @ ControlError::Lost(_)) => {
                    if !std::mem::replace(&mut lost, true) {
                        error!(%fault, "the catalog is not the one it was: serving and feeding as told before; restore it, then start this process again");
                    }
                }
                Err(fault) if !unreadable => {
                    unreadable = true;
                    warn!(%fault, "the control topics cannot be read: going on as told before");
                }
                Err(_) => {}
            }
            self.stop.wait(ROUND_EVERY);
        }
        self.end();
    }

    fn end(mut self) {
        self.stop.set();
        if let Some(signpost) = self.signpost.take() {
            signpost.close();
        }
        drop(self.gateway.take());
        if let Some(pool) = self.pool.take() {
            pool.close();
        }
        if let Some(coordinator) = self.coordinator.take()
            && coordinator.join().is_err()
        {
            error!("the coordinator panicked");
        }
        info!("ended");
    }
}

/// Says how often the ends of each topic are asked for.
fn paces(topics: BTreeMap<Topic, bool>) -> BTreeMap<Topic, Pace> {
    let pace = |tailing| {
        if tailing {
            Pace::Tailing
        } else {
            Pace::Building
        }
    };
    topics
        .into_iter()
        .map(|(topic, tailing)| (topic, pace(tailing)))
        .collect()
}

fn pool_settings(config: &Config, identity: &Identity) -> pool::Settings {
    pool::Settings {
        worker: identity.worker.clone(),
        process: identity.process.clone(),
        slots: config.worker.slots,
        only: config.worker.only.clone(),
        reclaim_after: config.worker.reclaim_after,
        address: config.address(),
    }
}

fn row_readers(
    config: &Config,
    catalog: &CatalogId,
) -> anyhow::Result<BTreeMap<String, Vec<Box<dyn RowReader>>>> {
    let mut readers = BTreeMap::new();
    for name in config.connections.keys() {
        let place = connect::redis_place(config, name, catalog)?;
        let newest = NewestAliases::default();
        let of_one = (0..READERS).map(|_| {
            let reader: Box<dyn RowReader> =
                Box::new(ViewReads::new(place.clone(), newest.clone()));
            reader
        });
        readers.insert(name.clone(), of_one.collect());
    }
    Ok(readers)
}

fn start_coordinator(
    config: &Arc<Config>,
    identity: &Identity,
    catalog: &CatalogId,
    access: &Arc<Access>,
    clock: &Arc<dyn Clock>,
    stop: &Stop,
) -> anyhow::Result<JoinHandle<()>> {
    let own = Arc::clone(config);
    let sinks = Admins::new(own, catalog.clone(), access, Arc::clone(clock));
    let settings = coordinator::Settings {
        name: identity.worker.to_string(),
        process: identity.process.clone(),
        drain: config.drain,
    };
    let mut coordinator = Coordinator::new(
        connect::control_log(config)?,
        Box::new(sinks),
        Arc::clone(clock),
        Box::new(new_event_id),
        settings,
    );
    let declarer = config
        .definitions
        .as_ref()
        .map(|folder| start_declarer(config, folder, clock))
        .transpose()?;
    let stop = stop.clone();
    let work = move || coordinate(&mut coordinator, declarer, &stop);
    thread::Builder::new()
        .name("coordinator".to_owned())
        .spawn(work)
        .context("start the coordinator")
}

/// The name under which the catalog tells what a folder of definitions asked for.
const DECLARER: &str = "definitions";

fn start_declarer(
    config: &Config,
    folder: &Path,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Declarer> {
    let log = connect::control_log(config)?;
    let client = CatalogClient::open(log, DECLARER, Box::new(new_event_id))
        .context("read the catalog for the folder of definitions")?;
    Ok(Declarer::new(folder.to_owned(), client, Arc::clone(clock)))
}

fn coordinate(coordinator: &mut Coordinator, mut declarer: Option<Declarer>, stop: &Stop) {
    let mut told = String::new();
    while !stop.is_set() {
        match declarer.as_mut().map(Declarer::step) {
            Some(Ok(Some(declared))) => coordinator.tell(declared),
            Some(Err(fault)) => debug!(%fault, "the folder of definitions has to wait"),
            Some(Ok(None)) | None => {}
        }
        let pause = match coordinator.step() {
            Ok(stepped) => {
                told.clear();
                match stepped {
                    Stepped::Busy => Duration::from_millis(10),
                    Stepped::Idle => ROUND_EVERY,
                }
            }
            Err(fault) => {
                let text = fault.to_string();
                if told != text {
                    match &fault {
                        CoordinatorError::Unavailable(_) => warn!(%fault, "trying again"),
                        CoordinatorError::Stopped(_) => error!(%fault, "look with `doctor`"),
                    }
                    told = text;
                }
                RETRY_EVERY
            }
        };
        stop.wait(pause);
    }
}
