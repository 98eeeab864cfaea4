//! What the coordinator does to a server: aliases, counts, canaries, deletion.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use materializer_model::definition::RedisTarget;
use materializer_model::ports::{AliasPointer, Counting, Retired, SinkAdmin, SinkError};
use materializer_model::{Clock, Offset, VersionId, ViewName};

use super::alias;
use super::connection::{Link, integer};
use super::keys;
use super::pack::Pack;
use super::pass::{self, Pass};
use super::retire::{await_replicas, mark_retired};
use super::settings::RedisPlace;

/// The coordinator's hand on a server, for the versions of one definition.
///
/// Reading and removing an alias hold for every view; the others take the number of shards and the key
/// template from the target that it was made with. Passes that a budget cut short
/// are remembered here and begin anew after a lost connection; rows that Redis moves between two
/// pages of a count may be counted twice.
pub struct RedisAdmin {
    link: Link,
    literal: String,
    shards: u16,
    clock: Arc<dyn Clock>,
    counts: BTreeMap<VersionId, Pass>,
    deletions: BTreeMap<VersionId, Pass>,
}

impl RedisAdmin {
    /// Makes the hand; it connects when it is first used.
    ///
    /// # Errors
    /// [`SinkError::Refused`] where the key template is not `<literal>{key}`.
    pub fn new(
        place: RedisPlace,
        target: &RedisTarget,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SinkError> {
        Ok(Self {
            literal: keys::literal(target)?.to_owned(),
            shards: target.shards,
            link: Link::new(place),
            clock,
            counts: BTreeMap::new(),
            deletions: BTreeMap::new(),
        })
    }

    /// Forgets the passes of a connection that is gone: a cursor means nothing to another server.
    fn forget_lost_passes(&mut self) {
        if !self.link.is_connected() {
            self.counts.clear();
            self.deletions.clear();
        }
    }
}

impl SinkAdmin for RedisAdmin {
    fn alias(&mut self, view: &ViewName) -> Result<Option<AliasPointer>, SinkError> {
        self.link
            .run(|place, connection| alias::read(place, connection, view))
    }

    fn move_alias(&mut self, view: &ViewName, to: &AliasPointer) -> Result<(), SinkError> {
        let shards = self.shards;
        self.link
            .run(|place, connection| alias::advance(place, connection, view, to, shards))
    }

    fn remove_alias(&mut self, view: &ViewName, at: Offset) -> Result<(), SinkError> {
        self.link
            .run(|place, connection| alias::remove(place, connection, view, at))
    }

    fn retire(
        &mut self,
        version: &VersionId,
        at: Offset,
        budget: Duration,
    ) -> Result<Retired, SinkError> {
        self.forget_lost_passes();
        let begun = self.deletions.remove(version);
        let is_begun = begun.is_some();
        let mut pass = begun.unwrap_or_default();
        let before = pass.rows;
        let (clock, shards) = (&*self.clock, self.shards);
        let finished = self.link.run(|place, connection| {
            if !is_begun {
                if !mark_retired(place, connection, version, shards, at)? {
                    return Ok(true);
                }
                await_replicas(place, connection)?;
            }
            let until = clock.monotonic().plus(budget);
            let is_over = pass.walk(place, connection, version, (clock, until), pass::delete)?;
            if is_over {
                // Else one that takes over could bring rows back, which nobody would delete any more.
                await_replicas(place, connection)?;
            }
            Ok(is_over)
        })?;
        let deleted = pass.rows - before;
        if !finished {
            self.deletions.insert(version.clone(), pass);
        }
        Ok(Retired { deleted, finished })
    }

    fn count(&mut self, version: &VersionId, budget: Duration) -> Result<Counting, SinkError> {
        self.forget_lost_passes();
        let mut pass = self.counts.remove(version).unwrap_or_default();
        let clock = &*self.clock;
        let finished = self.link.run(|place, connection| {
            let until = clock.monotonic().plus(budget);
            pass.walk(place, connection, version, (clock, until), pass::count)
        })?;
        let rows = pass.rows;
        if !finished {
            self.counts.insert(version.clone(), pass);
        }
        Ok(Counting { rows, finished })
    }

    fn exist(&mut self, version: &VersionId, keys: &[String]) -> Result<Vec<bool>, SinkError> {
        let literal = &self.literal;
        self.link.run(|place, connection| {
            let prefix = keys::rows(&place.installation, version) + literal;
            let mut pack = Pack::default();
            for key in keys {
                pack.begin(2);
                pack.part(b"EXISTS");
                pack.joined(prefix.as_bytes(), key.as_bytes());
            }
            let replies = connection.ask(&pack)?;
            replies
                .iter()
                .map(|reply| Ok(integer(connection, reply)? > 0))
                .collect()
        })
    }
}
