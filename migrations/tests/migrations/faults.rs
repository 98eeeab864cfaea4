//! Faults of the control log and of sinks, crashes, newer programs, and requests that nobody answered
//! in time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use materializer_migrations::client::{CatalogClient, ClientError, Outcome};
use materializer_migrations::coordinator::CoordinatorError;
use materializer_migrations::versions::Soak;
use materializer_migrations::{Adoption, Follower, Role, Verb};
use materializer_model::memory::{MeddledControlLog, MemoryControlLog};
use materializer_model::ports::{AliasPointer, ControlError, ControlLog, ControlTopic, SinkAdmin};
use materializer_model::{Offset, VersionNumber};
use tracing_subscriber::fmt::MakeWriter;

use crate::coordinator::{soak, two_versions};
use crate::sample::{apply, definition, ids, promote, rollback, view};

/// What happens to one append.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It does not arrive, and the broker says so.
    Refused,
    /// It arrives, and nobody says so.
    Acknowledgement,
    /// It does not arrive, and nobody says so.
    Lost,
    /// It arrives, and the process dies.
    Crash,
}

/// Makes a client of which one append, counted from the beginning, meets a fault.
fn faulty(
    log: MemoryControlLog,
    fault: Fault,
    at: u64,
    appends: Arc<AtomicU64>,
) -> impl ControlLog {
    let append =
        move |log: &mut MemoryControlLog, topic, key: Option<&str>, value: Option<&[u8]>| {
            if appends.fetch_add(1, Ordering::Relaxed) != at {
                return log.append(topic, key, value);
            }
            match fault {
                Fault::Refused => Err(ControlError::Unavailable("no leader".into())),
                Fault::Lost => Err(ControlError::Unknown("timed out".into())),
                Fault::Acknowledgement => {
                    log.append(topic, key, value)?;
                    Err(ControlError::Unknown("timed out".into()))
                }
                Fault::Crash => {
                    log.append(topic, key, value)?;
                    Err(ControlError::Unavailable("the process is gone".into()))
                }
            }
        };
    MeddledControlLog { log, append }
}

/// Promotes, rolls back and promotes again, with one faulty append, after which the coordinator's
/// process is a new one. Returns how often the first one appended.
fn run(fault: Fault, at: u64) -> u64 {
    let mut world = two_versions();
    let appends = Arc::new(AtomicU64::new(0));
    let faulty = faulty(world.control.log(), fault, at, appends.clone());
    world.coordinators = vec![world.coordinator("faulty", Box::new(faulty))];
    for verb in [promote(2), rollback(), promote(2)] {
        assert_eq!(world.ask(verb), Outcome::Done, "{fault:?} at append {at}");
    }
    world.until("the alias is confirmed", |w| {
        matches!(soak(w), Soak::Since(_))
    });
    assert_eq!(
        world.alias(),
        (Some(2), Some(2)),
        "{fault:?} at append {at}"
    );
    let roles = (world.role(1), world.role(2));
    assert_eq!(
        roles,
        (Some(Role::Standby), Some(Role::Live)),
        "{fault:?} at append {at}"
    );
    appends.load(Ordering::Relaxed)
}

#[test]
fn a_fault_or_crash_at_any_append_changes_nothing_in_the_result() {
    for fault in [
        Fault::Refused,
        Fault::Acknowledgement,
        Fault::Lost,
        Fault::Crash,
    ] {
        let appends = run(fault, u64::MAX);
        assert!(appends > 10, "{appends} appends");
        for at in 0..appends {
            run(fault, at);
        }
    }
}

#[test]
fn the_alias_follows_when_the_sink_can_be_reached_again() {
    let mut world = two_versions();
    world.sink_is_down(true);
    assert_eq!(
        world.ask(promote(2)),
        Outcome::Done,
        "the catalog is the truth"
    );
    world.ticks(4);
    assert_eq!(world.alias(), (Some(2), Some(1)));
    assert_eq!(soak(&world), Soak::Unconfirmed);
    let faults = world.status().faults;
    assert!(
        faults
            .iter()
            .any(|fault| fault.contains("no route to the sink")),
        "{faults:?}"
    );
    world.sink_is_down(false);
    world.until("the alias is confirmed", |w| {
        matches!(soak(w), Soak::Since(_))
    });
    assert_eq!(world.alias(), (Some(2), Some(2)));
}

#[test]
fn an_alias_that_was_read_back_long_ago_is_confirmed_by_nobody_who_slept() {
    let mut world = two_versions();
    let clock = world.clock.clone();
    let slept = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&slept);
    let append =
        move |log: &mut MemoryControlLog, topic, key: Option<&str>, value: Option<&[u8]>| {
            let event = String::from_utf8_lossy(value.unwrap_or_default());
            let mut slept = slept.lock().expect("one thread");
            if slept.is_none() && event.contains("alias_confirmed") {
                clock.advance(Duration::from_secs(30));
                *slept = Some(clock.now());
            }
            log.append(topic, key, value)
        };
    let log = MeddledControlLog {
        log: world.control.log(),
        append,
    };
    world.coordinators = vec![world.coordinator("sleepy", Box::new(log))];
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    world.until("the alias is confirmed", |w| {
        matches!(soak(w), Soak::Since(_))
    });
    let woke = seen.lock().expect("one thread").expect("it slept");
    assert!(
        matches!(soak(&world), Soak::Since(began) if began > woke),
        "{:?} after {woke}",
        soak(&world)
    );
}

#[test]
fn no_deletion_begins_while_the_alias_cannot_be_read_back() {
    let mut world = two_versions();
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    world.until("v1 drains", |w| w.role(1) == Some(Role::Draining));
    world.sink_is_down(true);
    world.ticks(600);
    assert_eq!(world.role(1), Some(Role::Draining));
    world.sink_is_down(false);
    world.until("v1 is retired", |w| w.role(1) == Some(Role::Retired));
}

#[test]
fn an_alias_that_is_not_ours_and_names_what_is_to_be_deleted_is_told() {
    let mut world = two_versions();
    let retire = Verb::Retire {
        view: view(),
        version: None,
    };
    assert_eq!(world.ask(retire), Outcome::Done);
    let foreign = AliasPointer {
        version: VersionNumber(1),
        epoch: Offset(1_000_000),
    };
    let mut admin = world.store.admin();
    admin.move_alias(&view(), &foreign).expect("memory answers");
    world.until("it is told", |w| !w.status().faults.is_empty());
    let faults = world.status().faults;
    let told = "alias of `products@v1`: another catalog or a person set it, at epoch 1000000";
    assert!(
        faults.len() == 1 && faults[0].starts_with(told),
        "{faults:?}"
    );
    world.ticks(200);
    assert_eq!(world.role(1), Some(Role::Draining), "nothing is deleted");
    admin
        .remove_alias(&view(), Offset(u64::MAX))
        .expect("memory answers");
    world.until("v1 is retired", |w| w.role(1) == Some(Role::Retired));
    world.ticks(4);
    assert_eq!(world.status().faults, [""; 0]);
}

#[test]
fn each_coordinator_logs_the_facts_that_count_once_whoever_appended_them() {
    let mut world = two_versions();
    // The producer sends everything twice: the second one never counts.
    let append = |log: &mut MemoryControlLog, topic, key: Option<&str>, value: Option<&[u8]>| {
        log.append(topic, key, value)?;
        log.append(topic, key, value)
    };
    let log = MeddledControlLog {
        log: world.control.log(),
        append,
    };
    world.coordinators = vec![world.coordinator("first", Box::new(log))];
    world.add_coordinator("second");
    world.tick();
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(lines.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        assert_eq!(world.ask(promote(2)), Outcome::Done);
        world.ticks(2);
    });
    let lines = lines.0.lock().expect("no test panics with it");
    let text = String::from_utf8_lossy(&lines);
    let promoted = text.matches("products@v2: promoted, v1 stands by").count();
    let confirmed = text.matches("every gateway serves").count();
    assert_eq!((promoted, confirmed), (2, 2), "{text}");
    assert!(!text.contains("not so"), "{text}");
}

/// What is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no test panics with it").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[test]
fn a_request_that_nobody_answered_in_time_is_never_carried_out() {
    let mut world = two_versions();
    world.coordinators.clear();
    assert_eq!(world.ask(promote(2)), Outcome::NoCoordinator);
    assert_eq!(Outcome::NoCoordinator.exit_code(), 4);
    world.clock.advance(Duration::from_secs(60));
    world.add_coordinator("late");
    world.ticks(10);
    assert_eq!(world.role(2), Some(Role::Building));
    let outstanding = world.client.state().catalog().outstanding().len();
    assert_eq!(outstanding, 0, "it was answered, with a refusal");
}

#[test]
fn a_plan_that_no_longer_holds_is_not_carried_out() {
    let mut world = two_versions();
    let back = rollback();
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    let shown = world.client.plan(&back).expect("a plan");
    assert_eq!(world.ask(rollback()), Outcome::Done);
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    assert_eq!(world.ask(apply(definition("c"))), Outcome::Done);
    world.until("v3 is ready", |w| {
        let v3 = crate::sample::version(3);
        w.status().version(&v3).is_some_and(|v3| v3.ready)
    });
    assert_eq!(world.ask(promote(3)), Outcome::Done);
    let request = world
        .client
        .ask(back, shown, "an old terminal")
        .expect("asked");
    let outcome = world.answer(&request);
    assert!(
        matches!(&outcome, Outcome::Refused { why, .. } if why.contains("moved on")),
        "{outcome:?}"
    );
    assert_eq!(world.alias().0, Some(3));
}

#[test]
fn an_event_of_a_newer_program_stops_deciding_and_nothing_else() {
    let mut world = two_versions();
    let mut log = world.control.log();
    let newer = br#"{"schema":1,"id":"x","views":{},"not_before":null,"not_after":9223372036854775807,"who":"ada","why":"","answers":null,"body":{"split":{}}}"#;
    let at = log
        .append(ControlTopic::Catalog, None, Some(newer))
        .expect("appended");
    let stopped = world.coordinators[0].step();
    assert!(
        matches!(stopped, Err(CoordinatorError::Stopped(_))),
        "{stopped:?}"
    );
    world.client.refresh().expect("reads on");
    let planned = world.client.plan(&promote(2));
    assert_eq!(planned, Err(ClientError::Newer(at.0)));
    assert_eq!(world.client.state().catalog().known_to(), at);
    assert_eq!(
        world.alias(),
        (Some(1), Some(1)),
        "readers keep what they have"
    );
    assert!(world.status().stopped.is_some());
}

#[test]
fn topics_that_the_catalog_is_not_bound_to_are_refused() {
    let world = two_versions();
    let mut state = Follower::default();
    state.follow(&mut world.control.log()).expect("read");
    assert_eq!(state.check_identity(&mut world.control.log()), Ok(()));
    let other = materializer_model::memory::MemoryControl::new("other", world.clock.clone());
    let mut log = other.log();
    log.create().expect("created");
    assert!(state.check_identity(&mut log).is_err());
}

#[test]
fn a_topic_that_holds_events_and_no_beginning_of_a_catalog_is_lost_and_no_new_catalog() {
    let world = two_versions();
    let late = world.events().pop().expect("there are events").value;
    world.control.renew();
    let mut log = world.control.log();
    log.create().expect("made anew");
    log.append(ControlTopic::Catalog, None, late.as_deref())
        .expect("an append from before arrives");
    let mut coordinator = world.coordinator("c9", Box::new(log));
    for _ in 0..20 {
        world.clock.advance(Duration::from_secs(1));
        let stepped = coordinator.step();
        let told =
            matches!(&stepped, Err(CoordinatorError::Stopped(why)) if why.contains("no beginning"));
        assert!(told, "{stepped:?}");
    }
    assert_eq!(world.events().len(), 1, "nothing is appended to it");

    // Once it is restored, whoever waited goes on.
    let restored = two_versions();
    world.control.renew();
    let mut log = world.control.log();
    log.create().expect("made anew");
    let begins = restored.events().remove(0).value;
    log.append(ControlTopic::Catalog, None, begins.as_deref())
        .expect("memory answers");
    let mut state = Follower::default();
    state.follow(&mut log).expect("it is a catalog");
    let stepped = coordinator.step();
    assert!(
        matches!(&stepped, Err(CoordinatorError::Stopped(why)) if why.contains("bound to other topics")),
        "it was not adopted: {stepped:?}"
    );
}

#[test]
fn a_catalog_that_was_cut_back_is_decided_on_by_nobody_whenever_they_began() {
    let mut world = two_versions();
    let before = world.events().len();
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    world.until("v2 leads", |w| w.alias() == (Some(2), Some(2)));
    let ends = Offset(u64::try_from(before).expect("few"));
    world.control.cut_back(ends);

    let old = world.coordinators.remove(0);
    let new = world.coordinator("c1", Box::new(world.control.log()));
    for (age, mut coordinator) in [("old", old), ("new", new)] {
        for _ in 0..100 {
            world.clock.advance(Duration::from_millis(200));
            let stepped = coordinator.step();
            let told = matches!(&stepped, Err(CoordinatorError::Stopped(why)) if why.contains("the catalog ends at"));
            assert!(told, "{age}: {stepped:?}");
        }
    }
    let client = CatalogClient::open(Box::new(world.control.log()), "eve", ids("eve"));
    assert!(client.is_err(), "nobody asks for anything either");
    assert_eq!(world.events().len(), before, "nothing was appended");
    assert_eq!(world.alias().1, Some(2), "readers stay where they were");

    // Restored into the same topics it stands above all that was read of it.
    world.clock.advance(Duration::from_secs(1));
    let adopter = CatalogClient::open_unbound(Box::new(world.control.log()), "ada", ids("adopter"));
    let mut adopter = adopter.expect("opened");
    let topics = world.control.log().identity().expect("memory answers");
    let now = adopter.now().expect("memory answers");
    let topics = topics.expect("they are there");
    let adoption = Adoption::plan(adopter.state(), topics, &[], now);
    adopter.adopt(adoption, "").expect("adopted");
    let mut next = world.coordinator("c3", Box::new(world.control.log()));
    for _ in 0..10 {
        world.clock.advance(Duration::from_secs(1));
        next.step().expect("it decides again");
    }
}
