//! A folder, a catalog in memory, and a coordinator without sinks.

use std::cell::RefCell;
use std::fs;
use std::sync::Arc;

use materializer_migrations::{Coordinator, Role, ViewSinks, coordinator};
use materializer_model::definition::QueryGate;
use materializer_model::memory::{ManualClock, MemoryControl};
use materializer_model::ports::{ControlLog, ControlTopic, SinkAdmin, SinkError};
use materializer_model::{Offset, ProcessId, Timestamp, Unit, ViewDefinition};

use super::*;

const A: &str = "view: v\nfrom: {topics: [t]}\ndocument: {x: event.x}\nto: {memory: {}}\n";
const B: &str = "view: v\nfrom: {topics: [t]}\ndocument: {y: event.y}\nto: {memory: {}}\n";

struct NoSinks;

impl ViewSinks for NoSinks {
    fn admin(&mut self, _: &ViewDefinition) -> Result<Option<&mut dyn SinkAdmin>, SinkError> {
        Ok(None)
    }

    fn hits(&mut self, _: &QueryGate, _: &[(Unit, String)]) -> Result<u64, SinkError> {
        Err(SinkError::Refused("there is no sink".into()))
    }
}

struct Bed {
    clock: ManualClock,
    control: MemoryControl,
    coordinator: RefCell<Coordinator>,
    root: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let clock = ManualClock::new(Timestamp(1_000_000));
        let control = MemoryControl::new("main", clock.clone());
        CatalogClient::create(Box::new(control.log()), "ada", ids()).expect("created");
        let root = tempfile::tempdir().expect("a folder");
        let settings = coordinator::Settings {
            name: "c".into(),
            process: ProcessId::new("process"),
            drain: Duration::from_secs(1),
        };
        let log = Box::new(control.log());
        let time = Arc::new(clock.clone());
        let coordinator = Coordinator::new(log, Box::new(NoSinks), time, ids(), settings);
        Self {
            clock,
            control,
            coordinator: RefCell::new(coordinator),
            root,
        }
    }

    /// Returns a process with a copy of the folder of its own.
    fn process(&self, copy: &str) -> Declarer {
        let folder = self.root.path().join(copy);
        fs::create_dir_all(&folder).expect("a folder");
        let client = CatalogClient::open(Box::new(self.control.log()), "definitions", ids());
        let clock = Arc::new(self.clock.clone());
        Declarer::new(folder, client.expect("a catalog"), clock)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.root.path().join(file), text).expect("written");
    }

    /// Lets the process look once and the coordinator answer, and returns what the process tells.
    fn look(&self, process: &mut Declarer) -> Vec<String> {
        self.clock.advance(LOOK_EVERY);
        let told = process.step().expect("memory answers");
        for _ in 0..4 {
            let stepped = self.coordinator.borrow_mut().step();
            stepped.expect("memory answers");
        }
        told.expect("it was time to look")
    }

    /// Lets the process look until nothing is left to do.
    fn settle(&self, process: &mut Declarer) {
        for _ in 0..4 {
            self.look(process);
        }
    }

    fn events(&self) -> usize {
        let mut events = Vec::new();
        let mut log = self.control.log();
        log.read(ControlTopic::Catalog, Offset(0), &mut events)
            .expect("memory answers");
        events.len()
    }

    fn candidates(&self) -> Vec<(u32, Role)> {
        let client = CatalogClient::open(Box::new(self.control.log()), "c", ids());
        let client = client.expect("a catalog");
        let view = client.state().catalog().view(&"v".parse().expect("a name"));
        let versions = view.into_iter().flat_map(|view| view.versions.values());
        versions.map(|it| (it.id.number.0, it.role)).collect()
    }
}

fn ids() -> Box<dyn FnMut() -> EventId + Send> {
    Box::new(|| EventId::new(uuid::Uuid::new_v4().to_string()))
}

#[test]
fn a_copy_of_the_folder_that_is_late_takes_nothing_back() {
    let bed = Bed::new();
    let (mut one, mut other) = (bed.process("one"), bed.process("other"));
    bed.write("one/v.yaml", A);
    bed.write("other/v.yaml", A);
    for _ in 0..4 {
        bed.look(&mut one);
        bed.look(&mut other);
    }
    assert_eq!(bed.candidates(), [(1, Role::Building)]);
    bed.write("one/v.yaml", B);
    bed.settle(&mut one);
    let carried_out = bed.events();
    for _ in 0..30 {
        bed.look(&mut other);
        bed.look(&mut one);
    }
    assert_eq!(
        bed.events(),
        carried_out,
        "the late copy has seen no change"
    );
    bed.write("other/v.yaml", B);
    bed.settle(&mut other);
    assert_eq!(bed.events(), carried_out, "it is settled");
    assert_eq!(bed.candidates().last(), Some(&(2, Role::Building)));
}

#[test]
fn a_file_that_cannot_be_read_for_a_moment_is_no_change() {
    for moment in [None, Some(""), Some("view: [")] {
        let bed = Bed::new();
        let (mut one, mut late) = (bed.process("one"), bed.process("late"));
        bed.write("one/v.yaml", A);
        bed.write("late/v.yaml", A);
        for _ in 0..4 {
            bed.look(&mut one);
            bed.look(&mut late);
        }
        bed.write("one/v.yaml", B);
        for _ in 0..4 {
            bed.look(&mut one);
        }
        let carried_out = bed.events();
        let file = bed.root.path().join("late/v.yaml");
        match moment {
            None => fs::remove_file(&file).expect("removed"),
            Some(text) => fs::write(&file, text).expect("written"),
        }
        bed.look(&mut late);
        bed.write("late/v.yaml", A);
        for _ in 0..10 {
            bed.look(&mut late);
        }
        assert_eq!(bed.events(), carried_out, "{moment:?}");
    }
}

#[test]
fn what_was_asked_for_is_not_asked_for_again_once_a_later_one_is_carried_out() {
    let bed = Bed::new();
    let (mut late, mut other) = (bed.process("late"), bed.process("other"));
    bed.write("late/v.yaml", A);
    bed.write("other/v.yaml", A);
    bed.look(&mut late);
    bed.look(&mut other);
    bed.write("other/v.yaml", B);
    bed.look(&mut other);
    let carried_out = bed.events();
    for _ in 0..10 {
        bed.look(&mut late);
        bed.look(&mut other);
    }
    assert_eq!(
        bed.events(),
        carried_out,
        "the late one has not seen A done"
    );
    bed.write("late/v.yaml", B);
    bed.write("other/v.yaml", A);
    for _ in 0..4 {
        bed.look(&mut late);
        bed.look(&mut other);
    }
    assert_eq!(bed.candidates().last(), Some(&(3, Role::Building)));
}

#[test]
fn a_change_is_carried_out_though_the_one_before_it_is_answered_late() {
    let bed = Bed::new();
    let mut process = bed.process("one");
    bed.write("one/v.yaml", A);
    bed.clock.advance(LOOK_EVERY);
    process.step().expect("memory answers");
    let mut next = bed.process("one");
    bed.write("one/v.yaml", B);
    for process in [&mut process, &mut next] {
        bed.clock.advance(LOOK_EVERY);
        process.step().expect("memory answers");
    }
    bed.settle(&mut next);
    assert_eq!(bed.candidates().last(), Some(&(2, Role::Building)));
    let carried_out = bed.events();
    bed.settle(&mut process);
    assert_eq!(bed.events(), carried_out);
}

#[test]
fn a_process_that_begins_carries_out_what_is_not_settled_and_nothing_else() {
    let bed = Bed::new();
    let mut process = bed.process("one");
    bed.write("one/v.yaml", A);
    bed.settle(&mut process);
    let carried_out = bed.events();
    let mut next = bed.process("one");
    for _ in 0..4 {
        assert_eq!(bed.look(&mut next), Vec::<String>::new());
    }
    assert_eq!(bed.events(), carried_out);
}

#[test]
fn a_file_at_fault_is_told_and_takes_nothing_from_the_others() {
    let bed = Bed::new();
    let mut process = bed.process("one");
    bed.write("one/v.yaml", A);
    bed.write("one/w.yaml", "view: w\nform: {topics: [t]}\n");
    let told = bed.look(&mut process);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("`definitions`: w.yaml:"), "{told:?}");
    bed.look(&mut process);
    assert_eq!(bed.candidates(), [(1, Role::Building)]);
    bed.write("one/w.yaml", A);
    let told = bed.look(&mut process);
    assert!(
        told[0].contains("view `v` is in v.yaml and in w.yaml"),
        "{told:?}"
    );
}

#[test]
fn a_view_that_is_declared_no_more_goes_on_and_is_told() {
    let bed = Bed::new();
    let mut process = bed.process("one");
    bed.write("one/v.yaml", A);
    bed.settle(&mut process);
    fs::remove_file(bed.root.path().join("one/v.yaml")).expect("removed");
    let told = bed.look(&mut process);
    assert!(
        told[0].contains("`v` is declared no more, and goes on"),
        "{told:?}"
    );
    assert_eq!(bed.candidates(), [(1, Role::Building)]);
    bed.write("one/broken.yaml", "view: [");
    let told = bed.look(&mut process);
    assert_eq!(told.len(), 1, "it may be in the broken one: {told:?}");
    fs::remove_dir_all(bed.root.path().join("one")).expect("removed");
    let told = bed.look(&mut process);
    assert!(told[0].contains("cannot read"), "{told:?}");
}
