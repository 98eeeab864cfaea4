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
use super::retire::{Pass, await_replicas, count, delete, mark_retired};
use super::settings::RedisPlace;

/// The coordinator's hand on a server, for the versions of one definition.
///
/// What it does to an alias holds for every view; `retire`, `count` and `exist` take the number of
/// shards and the key template from the target they were made with. Passes that a budget cut short
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
        self.link
            .run(|place, connection| alias::advance(place, connection, view, to))
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
        let mut pass = self.deletions.remove(version);
        let (clock, shards) = (&*self.clock, self.shards);
        let retired = self.link.run(|place, connection| {
            if pass.is_none() {
                if !mark_retired(place, connection, version, shards, at)? {
                    return Ok(Retired {
                        deleted: 0,
                        finished: true,
                    });
                }
                await_replicas(place, connection)?;
            }
            delete(place, connection, clock, version, budget, &mut pass)
        })?;
        self.deletions
            .extend(pass.map(|pass| (version.clone(), pass)));
        Ok(retired)
    }

    fn count(&mut self, version: &VersionId, budget: Duration) -> Result<Counting, SinkError> {
        self.forget_lost_passes();
        let mut pass = self.counts.remove(version);
        let clock = &*self.clock;
        let counting = self
            .link
            .run(|place, connection| count(place, connection, clock, version, budget, &mut pass))?;
        self.counts.extend(pass.map(|pass| (version.clone(), pass)));
        Ok(counting)
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
