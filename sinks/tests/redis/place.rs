//! A server as a place for the conformance suite, and the parts that the other tests share.

use std::sync::Arc;
use std::time::Duration;

use materializer_model::definition::{RedisShape, RedisTarget};
use materializer_model::memory::ManualClock;
use materializer_model::ports::{Sink, SinkAdmin, SinkReader};
use materializer_model::{CatalogId, SinkId, Timestamp, Unit};
use materializer_sinks::conformance::{Abilities, Harm, Place, Restore};
use materializer_sinks::redis::{RedisAdmin, RedisPlace, RedisReader, RedisSettings, RedisSink};

use crate::server::Server;

/// Returns the place of installation `main` in a server.
pub(crate) fn place(settings: RedisSettings) -> RedisPlace {
    RedisPlace {
        server: settings,
        installation: "main".parse().expect("a name"),
        catalog: CatalogId::new("catalog"),
        sink: None,
    }
}

pub(crate) fn target(shape: RedisShape) -> RedisTarget {
    RedisTarget {
        connection: "cache".into(),
        key: "product:{key}".into(),
        shape,
        ttl: None,
        shards: 1,
    }
}

pub(crate) fn sink(settings: RedisSettings, unit: &Unit) -> RedisSink {
    let target = target(RedisShape::Json);
    let id = SinkId::new("server-1");
    RedisSink::new(place(settings), target, unit.clone(), id).expect("a sink")
}

pub(crate) fn admin(settings: RedisSettings) -> RedisAdmin {
    admin_of(settings, &target(RedisShape::Json))
}

pub(crate) fn admin_of(settings: RedisSettings, target: &RedisTarget) -> RedisAdmin {
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    RedisAdmin::new(place(settings), target, clock).expect("an admin")
}

pub(crate) struct RedisTestPlace {
    pub(crate) server: Server,
    shape: RedisShape,
}

impl RedisTestPlace {
    pub(crate) fn start(shape: RedisShape) -> Self {
        let server = Server::start();
        Self { server, shape }
    }

    fn target(&self) -> RedisTarget {
        RedisTarget {
            ttl: Some(Duration::from_secs(60)),
            shards: 2,
            ..target(self.shape)
        }
    }
}

impl Place for RedisTestPlace {
    fn abilities(&self) -> Abilities {
        Abilities {
            takes_from_the_living: true,
            shards: true,
            expiry: true,
            aliases: true,
        }
    }

    fn sink(&self, unit: &Unit) -> Box<dyn Sink> {
        let place = place(self.server.settings());
        let id = SinkId::new("server-1");
        Box::new(RedisSink::new(place, self.target(), unit.clone(), id).expect("a sink"))
    }

    fn reader(&self, unit: &Unit) -> Box<dyn SinkReader> {
        let place = place(self.server.settings());
        Box::new(RedisReader::new(place, &self.target(), unit.clone()).expect("a reader"))
    }

    fn admin(&self) -> Box<dyn SinkAdmin> {
        Box::new(admin_of(self.server.settings(), &self.target()))
    }

    fn save(&self) -> Restore<'_> {
        let mut client = self.server.client();
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS")
            .arg("*")
            .query(&mut client)
            .expect("keys");
        let dump = |key: &Vec<u8>| -> (Vec<u8>, Vec<u8>, i64) {
            let ask = |name| redis::cmd(name).arg(key).take();
            let dump = ask("DUMP").query(&mut client).expect("a dump");
            let ends: i64 = ask("PEXPIRETIME").query(&mut client).expect("an end");
            (key.clone(), dump, ends.max(0))
        };
        let dumps: Vec<_> = keys.iter().map(dump).collect();
        Box::new(move || {
            self.server.command::<()>("FLUSHALL");
            let mut client = self.server.client();
            for (key, dump, ends) in dumps {
                let mut restore = redis::cmd("RESTORE");
                restore.arg(key).arg(ends).arg(dump).arg("ABSTTL");
                restore.exec(&mut client).expect("restored");
            }
        })
    }

    fn harm(&self, unit: &Unit, harm: Harm) -> bool {
        let checkpoint = format!(
            "main::{}:{}:s{}:checkpoint",
            unit.version.view, unit.version.number, unit.shard
        );
        match harm {
            Harm::Empty => self.server.command::<()>("FLUSHALL"),
            Harm::LoseCheckpoint => self.server.command::<()>(&format!("DEL {checkpoint}")),
            Harm::SpoilCheckpoint => {
                self.server
                    .command::<()>(&format!("SET {checkpoint} spoiled"));
            }
        }
        true
    }
}
