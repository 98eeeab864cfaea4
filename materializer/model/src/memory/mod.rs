//! The ports in this process's memory, exact and without faults of their own: for `try`, for the
//! tests of other crates, and for the simulator, which wraps them and adds the faults.
//!
//! Each is a handle on shared state: clones see the same log, store or clock. None of them blocks,
//! asks the machine for the time, or holds a lock across a call.

mod admin;
mod clock;
mod control;
mod dead_letters;
mod log;
mod partition;
mod reader;
mod store;
mod view;

use std::sync::{Mutex, MutexGuard};

pub use admin::MemoryAdmin;
pub use clock::ManualClock;
pub use control::{MeddledControlLog, MemoryControl, MemoryControlLog};
pub use dead_letters::MemoryDeadLetters;
pub use log::{MemoryLog, MemoryRecord, TopicSettings, Transaction};
pub use reader::{MemoryObserver, MemoryReader};
pub use store::{MemorySink, MemorySinkReader, MemoryStore, StoreImage};
pub use view::raw_view;

/// Locks shared state.
fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state
        .lock()
        .expect("nothing panics while it holds the state of a memory double")
}
