//! The three control topics, as anybody with write access to them can fill them.

use std::sync::Arc;
use std::time::Duration;

use materializer::gateway::Routes;
use materializer_migrations::coordinator::Settings;
use materializer_migrations::event::Read;
use materializer_migrations::{Coordinator, Envelope, Follower, Status, ViewSinks};
use materializer_model::definition::QueryGate;
use materializer_model::memory::{ManualClock, MemoryAdmin, MemoryControl, MemoryStore};
use materializer_model::ports::{ControlLog as _, ControlTopic, SinkAdmin, SinkError};
use materializer_model::{EventId, ProcessId, Timestamp, Unit, ViewDefinition};

use crate::lines;

/// Records of the control topics, one a line: `catalog VALUE`, `claims KEY VALUE`, `progress KEY VALUE`,
/// behind the event that begins a catalog. Two readers agree on them, events come back as they are stored, and
/// `status`, the gateway's routes and the coordinator make something of whatever they add up to.
///
/// # Panics
/// Where one of them does not.
pub fn control(bytes: &[u8]) {
    let clock = ManualClock::new(Timestamp(1_000_000));
    let control = MemoryControl::new("main", clock.clone());
    let mut log = control.log();
    let mut ids = 0;
    let mut new_id = move || {
        ids += 1;
        EventId::new(format!("id-{ids}"))
    };
    let mut follower = Follower::default();
    follower
        .create(&mut log, "test", &mut new_id)
        .expect("a catalog");
    for line in lines(bytes).take(50) {
        let Some((topic, rest)) = line.split_once(' ') else {
            continue;
        };
        let (topic, key, value) = match topic {
            "catalog" => (ControlTopic::Catalog, None, rest),
            "claims" | "progress" => {
                let (key, value) = rest.split_once(' ').unwrap_or((rest, ""));
                let of_claims = topic == "claims";
                let topic = if of_claims {
                    ControlTopic::Claims
                } else {
                    ControlTopic::Progress
                };
                (topic, Some(key), value)
            }
            _ => continue,
        };
        if let Read::Known(event) = Envelope::read(value.as_bytes()) {
            assert_eq!(Envelope::read(&event.encode()), Read::Known(event));
        }
        let value = (!value.is_empty()).then_some(value.as_bytes());
        log.append(topic, key, value).expect("memory takes it");
        // One follows record by record, the other reads all at the end.
        follower.follow(&mut log).expect("memory is read");
        clock.advance(Duration::from_millis(10));
    }
    let mut second = Follower::default();
    second.follow(&mut control.log()).expect("memory is read");
    let told = |follower: &Follower| {
        let status = Status::at(follower, clock.now());
        serde_json::to_string(&status).expect("it is told as JSON")
    };
    assert_eq!(told(&follower), told(&second));
    let routes = |follower: &Follower| Routes::of(follower.catalog(), follower.reports());
    assert_eq!(routes(&follower), routes(&second));
    decide(&control, &clock);
}

/// Has a coordinator act on what there is.
fn decide(control: &MemoryControl, clock: &ManualClock) {
    let mut ids = 0;
    let new_id = move || {
        ids += 1;
        EventId::new(format!("decided-{ids}"))
    };
    let settings = Settings {
        name: "coordinator".to_owned(),
        process: ProcessId::new("process"),
        drain: Duration::from_secs(60),
    };
    let sinks = Box::new(Sinks(MemoryStore::default().admin()));
    let shared = Arc::new(clock.clone());
    let mut coordinator = Coordinator::new(
        Box::new(control.log()),
        sinks,
        shared,
        Box::new(new_id),
        settings,
    );
    for _ in 0..20 {
        // A fault is an answer.
        drop(coordinator.step());
        clock.advance(Duration::from_secs(10));
    }
}

/// One sink in memory for all.
struct Sinks(MemoryAdmin);

impl ViewSinks for Sinks {
    fn admin(&mut self, _: &ViewDefinition) -> Result<Option<&mut dyn SinkAdmin>, SinkError> {
        Ok(Some(&mut self.0))
    }

    fn hits(&mut self, _: &QueryGate, _: &[(Unit, String)]) -> Result<u64, SinkError> {
        Ok(1)
    }
}
