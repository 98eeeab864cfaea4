//! The sinks as the coordinator reaches them: Redis by its own connections, tantivy copies through the
//! workers that hold them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use materializer_migrations::ViewSinks;
use materializer_model::definition::{QueryGate, RedisTarget, Target};
use materializer_model::ports::{SinkAdmin, SinkError};
use materializer_model::{CatalogId, Clock, Unit, ViewDefinition};
use materializer_sinks::redis::RedisAdmin;
use materializer_sinks::tantivy::search::SearchRequest;

use crate::access::Access;
use crate::config::Config;
use crate::connect;
use crate::gateway::{CopyAt, ReadError, Workers};

/// How long a worker is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The administrations of all sinks, made when they are first asked for.
pub(crate) struct Admins {
    config: Arc<Config>,
    catalog: CatalogId,
    clock: Arc<dyn Clock>,
    workers: Workers,
    /// By connection, key template and shards: what an administration is made of.
    redis: BTreeMap<(String, String, u16), RedisAdmin>,
}

impl Admins {
    /// Makes the administrations of an installation's sinks; nothing is reached yet.
    #[must_use]
    pub(crate) fn new(
        config: Arc<Config>,
        catalog: CatalogId,
        access: &Arc<Access>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            config,
            workers: Workers::new(&catalog, access, ANSWER_WITHIN),
            catalog,
            clock,
            redis: BTreeMap::new(),
        }
    }

    fn redis(&mut self, target: &RedisTarget) -> Result<&mut RedisAdmin, SinkError> {
        let key = (target.connection.clone(), target.key.clone(), target.shards);
        // Two look-ups: an entry would hold the map while the administration is made.
        if !self.redis.contains_key(&key) {
            let place = connect::redis_place(&self.config, &target.connection, &self.catalog)
                .map_err(|error| SinkError::Refused(format!("{error:#}")))?;
            let admin = RedisAdmin::new(place, target, Arc::clone(&self.clock))?;
            self.redis.insert(key.clone(), admin);
        }
        Ok(self.redis.get_mut(&key).expect("put in above"))
    }
}

impl ViewSinks for Admins {
    fn admin(
        &mut self,
        definition: &ViewDefinition,
    ) -> Result<Option<&mut dyn SinkAdmin>, SinkError> {
        match &definition.to {
            Target::Redis(target) => Ok(Some(self.redis(target)?)),
            Target::Tantivy(_) | Target::Memory {} => Ok(None),
        }
    }

    fn hits(&mut self, query: &QueryGate, copies: &[(Unit, String)]) -> Result<u64, SinkError> {
        let Some((unit, address)) = copies.first() else {
            return Err(SinkError::Unavailable("no copy is servable".to_owned()));
        };
        let request = SearchRequest {
            q: Some(query.q.clone()),
            size: Some(0),
            ..SearchRequest::default()
        };
        let copy = CopyAt {
            unit: unit.clone(),
            address: address.clone(),
        };
        let found = self.workers.search(&copy, None, &request);
        let found = found.map_err(|fault| match fault {
            ReadError::Gone(why) | ReadError::Unavailable(why) => SinkError::Unavailable(why),
            fault @ (ReadError::Invalid(_)
            | ReadError::WrongType
            | ReadError::NotFound(_)
            | ReadError::Broken(_)) => SinkError::Refused(format!("`{}`: {fault}", query.q)),
        })?;
        Ok(found.total)
    }
}
