//! What all simulated processes share: the seed's choices, faults, writes that are still on their way,
//! and the fate of each process, which can crash or fall asleep before and after every call of a port.

use std::panic;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::History;
use crate::random::Random;

/// What a crashing process unwinds with.
pub(crate) struct Crash;

/// A write that its process has given up and that is still on its way; says what came of it.
pub(crate) type Late = Box<dyn FnOnce() -> String + Send>;

/// A rule that a server breaks on purpose, to test the simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A commit is applied whoever sends it and whatever it follows.
    WrittenUnfenced,
    /// The parts of a commit but the last are applied whoever sends them.
    PartUnfenced,
    /// The first of several parts of a commit moves the checkpoint.
    CheckpointTooEarly,
    /// Whoever opens a unit owns it, by whatever claim.
    TokenLowered,
    /// An alias is written without regard to the one in place.
    AliasOverwritten,
}

/// What all simulated ports share.
pub(crate) struct Chaos {
    random: Random,
    history: History,
    /// How many of a thousand calls fail.
    faults: u64,
    is_calm: bool,
    pub(crate) late: Vec<Late>,
    pub(crate) trace: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Chaos>>);

impl Shared {
    pub(crate) fn new(history: &History) -> Self {
        let mut random = Random::new(history.seed);
        Self(Arc::new(Mutex::new(Chaos {
            faults: random.below(4) * 30,
            random,
            history: history.clone(),
            is_calm: false,
            late: Vec::new(),
            trace: Vec::new(),
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Chaos> {
        self.0.lock().expect("crashes hold no lock")
    }

    pub(crate) fn note(&self, line: String) {
        self.lock().trace.push(line);
    }

    /// Lets an event happen, unless the history leaves it out. It, and all that it causes at once, has
    /// choices of its own, so that the others stay as they are without it.
    pub(crate) fn event(&self, number: u64, does: impl FnOnce()) {
        if self.lock().history.has(number) {
            self.with_choices(number, does);
        }
    }

    /// Lets something happen that no history leaves out, with choices of its own.
    pub(crate) fn with_choices(&self, number: u64, does: impl FnOnce()) {
        let outer = {
            let mut chaos = self.lock();
            let choices = Random::of_event(chaos.history.seed, number);
            std::mem::replace(&mut chaos.random, choices)
        };
        does();
        self.lock().random = outer;
    }

    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.lock().random.below(bound)
    }

    pub(crate) fn chance(&self, of_thousand: u64) -> bool {
        self.lock().random.chance(of_thousand)
    }

    pub(crate) fn index(&self, length: usize) -> usize {
        self.lock().random.index(length)
    }

    /// Says whether the servers have a flaw.
    pub(crate) fn has(&self, flaw: Flaw) -> bool {
        self.lock().history.flaw == Some(flaw)
    }

    /// Ends all faults.
    pub(crate) fn calm(&self) {
        self.note("calm".into());
        let mut chaos = self.lock();
        chaos.faults = 0;
        chaos.is_calm = true;
    }

    /// Says whether a process believes, against all signs, that nobody feeds a unit.
    pub(crate) fn misjudges(&self) -> bool {
        let mut chaos = self.lock();
        !chaos.is_calm && chaos.random.chance(5)
    }

    /// Says whether a call fails.
    pub(crate) fn fails(&self) -> bool {
        let mut chaos = self.lock();
        let faults = chaos.faults;
        chaos.random.chance(faults)
    }

    /// Leaves a write on its way.
    pub(crate) fn delay(&self, late: Late) {
        self.lock().late.push(late);
    }

    /// Lets one of the writes that are on their way arrive.
    pub(crate) fn arrive(&self) {
        let late = {
            let mut chaos = self.lock();
            let waiting = chaos.late.len();
            if waiting == 0 {
                return;
            }
            let at = chaos.random.index(waiting);
            chaos.late.remove(at)
        };
        let outcome = late();
        self.note(format!("a late write arrives: {outcome}"));
    }
}

/// What becomes of a process some port calls later.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// It is gone.
    Crash,
    /// It sleeps in the middle of what it does, while so many other things happen.
    Sleep(u64),
}

/// When a fate comes: after so many points, or after so many of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doom {
    pub(crate) points: u64,
    pub(crate) only: Option<&'static str>,
    pub(crate) fate: Fate,
}

/// Lets that many other things happen, while the process that calls it sleeps.
pub(crate) type Meanwhile = Arc<dyn Fn(u64) + Send + Sync>;

/// One process's life.
#[derive(Clone)]
pub(crate) struct Life {
    pub(crate) name: String,
    pub(crate) shared: Shared,
    doom: Arc<Mutex<Option<Doom>>>,
    meanwhile: Meanwhile,
}

impl Life {
    pub(crate) fn new(name: &str, shared: &Shared, meanwhile: Meanwhile) -> Self {
        Self {
            name: name.to_owned(),
            shared: shared.clone(),
            doom: Arc::default(),
            meanwhile,
        }
    }

    /// Sets what becomes of it; nothing, if `None`.
    pub(crate) fn doom(&self, doom: Option<Doom>) {
        *self.doom.lock().expect("held for a moment") = doom;
    }

    /// A point between two port calls.
    pub(crate) fn point(&self, call: &str) {
        let due = {
            let mut doom = self.doom.lock().expect("held for a moment");
            match &mut *doom {
                Some(Doom { only, .. }) if only.is_some_and(|only| only != call) => None,
                Some(Doom { points: 0, .. }) => doom.take().map(|doom| doom.fate),
                Some(Doom { points, .. }) => {
                    *points -= 1;
                    None
                }
                None => None,
            }
        };
        match due {
            None => {}
            Some(Fate::Crash) => {
                self.shared.note(format!("{} crashes at {call}", self.name));
                panic::resume_unwind(Box::new(Crash));
            }
            Some(Fate::Sleep(events)) => {
                self.shared.note(format!("{} sleeps at {call}", self.name));
                (self.meanwhile)(events);
                self.shared.note(format!("{} wakes", self.name));
            }
        }
    }

    pub(crate) fn around<T>(&self, call: &str, does: impl FnOnce() -> T) -> T {
        self.point(call);
        let outcome = does();
        self.point(call);
        outcome
    }
}
