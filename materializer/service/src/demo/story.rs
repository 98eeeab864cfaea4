//! What happens in the demo, in order, told as it happens.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use materializer_migrations::reports::Heard;
use materializer_migrations::{CatalogClient, Role};
use materializer_model::progress::{Phase, Progress};
use materializer_model::{
    Clock as _, Monotonic, ProcessId, Topic, Unit, VersionId, VersionNumber, ViewName, WorkerId,
};
use materializer_sinks::tantivy::search::SearchResponse;

use super::ask::{self, CacheRows};
use super::operator::{Interrupted, Operator, version};
use super::oracle::{Difference, Document, Oracle};
use super::proof::{Proof, millis};
use super::readers::{FRESH_WITHIN, Gateway, Readers};
use super::stage::Stage;
use super::views;
use super::writer::{Selling, Writer};
use super::{Narrator, PARTITIONS, Settings};
use crate::output::Count;

/// How long readers go on after a change before the next thing happens.
const LOOK_AROUND: Duration = Duration::from_secs(2);
/// How long v2 serves before it is rolled back: a standby that is no longer fed would be stale by then.
const UNTIL_ROLLBACK: Duration = FRESH_WITHIN.saturating_add(Duration::from_secs(1));
/// How long everybody may take to follow the alias.
const FOLLOW_WITHIN: Duration = Duration::from_secs(30);
/// How many documents are compared at once.
const PAGE: usize = 1000;

/// The demo's story, before it is told.
pub(super) struct Story {
    pub(super) settings: Settings,
    pub(super) oracle: Arc<Oracle>,
    pub(super) products: usize,
    pub(super) narrator: Narrator,
    pub(super) interrupted: Interrupted,
}

/// A view of the demo.
struct Migrated {
    name: ViewName,
    text: &'static str,
}

impl Story {
    fn tell_line(&self, line: impl AsRef<str>) -> anyhow::Result<()> {
        self.narrator.tell(line)
    }

    /// Lets everything happen and returns the proof of it.
    pub(super) fn tell(&self, stage: &mut Stage, mut writer: Writer) -> anyhow::Result<Proof> {
        let views = self.set_up(stage)?;
        writer.genesis(self.settings.events)?;
        let products = Count(u64::try_from(self.products).unwrap_or(u64::MAX));
        self.tell_line(format!(
            "the shop has written {} events of {products} products, and goes on writing",
            Count(writer.written)
        ))?;
        let selling = Selling::start(writer)?;
        stage.start_worker()?;
        stage.start_everything(&self.narrator.clock)?;
        let (config, clock) = (stage.config()?, &self.narrator.clock);
        let mut operator = Operator::start(&config, clock, &self.interrupted, || stage.alive())?;
        self.first_versions(&mut operator, &views)?;
        let gateway = Gateway {
            http: stage.http,
            redis: stage.redis_port,
            has_cache: stage.redis().is_some(),
        };
        let readers = Readers::start(gateway, &self.oracle, self.products, clock)?;
        self.interrupted.pause(clock, LOOK_AROUND)?;
        let mut proof = Proof {
            views: u64::try_from(views.len()).unwrap_or(u64::MAX),
            ..Proof::default()
        };
        proof.resume_ms = self.second_versions(stage, &mut operator, &views)?;
        self.migrate(&mut operator, &views, &readers, &mut proof)?;
        let written = selling.close()?;
        self.wait_for_all(&mut operator, &views, written)?;
        let seen = readers.end()?;
        proof.take(&seen);
        self.compare(gateway, &mut proof)?;
        let (is_whole, ends) = stage.log_ends(&Topic::new(views::TOPIC), clock)?;
        (proof.events, proof.versions) = (ends, operator.roles());
        (proof.keys, proof.documents) = self.oracle.count();
        proof.conclude(self.settings.events, written, is_whole);
        Ok(proof)
    }

    fn set_up(&self, stage: &Stage) -> anyhow::Result<Vec<Migrated>> {
        self.tell_line(format!(
            "a Kafka broker runs in this process: librdkafka's mock, {PARTITIONS} partitions of at most 5 MiB, in memory"
        ))?;
        let view = |name: &str, text| -> anyhow::Result<Migrated> {
            let name = name.parse()?;
            Ok(Migrated { name, text })
        };
        let mut views = vec![view("product-search", views::SEARCH)?];
        self.tell_line(match stage.redis() {
            Some((at, true)) => {
                format!("a private Redis runs at {at}: a search index and a cache are built")
            }
            Some((at, false)) => {
                format!("the Redis at {at} is used, under a prefix that is removed in the end")
            }
            None => {
                "no Redis on the PATH and none at 127.0.0.1:6379: the search index alone is built"
                    .to_owned()
            }
        })?;
        if stage.redis().is_some() {
            views.push(view("products", views::CACHE)?);
        }
        Ok(views)
    }

    /// Builds v1 of every view; a first version is promoted as soon as it is ready.
    fn first_versions(&self, operator: &mut Operator, views: &[Migrated]) -> anyhow::Result<()> {
        for view in views {
            operator.apply(&views::definition(view.text, 1)?)?;
            self.tell_line(format!("apply: {}@v1 replays from genesis", view.name))?;
        }
        for view in views {
            operator.wait_live(&version(&view.name, 1))?;
            self.tell_line(format!("{}@v1 is live", view.name))?;
        }
        self.tell_line("readers ask by alias, through the gateway, without a pause")
    }

    /// Builds v2 beside v1; a worker is killed in the middle. Returns how long it took to resume.
    fn second_versions(
        &self,
        stage: &mut Stage,
        operator: &mut Operator,
        views: &[Migrated],
    ) -> anyhow::Result<f64> {
        let worker = stage.worker_id().context("the worker has no id yet")?;
        for view in views {
            let because = operator.apply(&views::definition(view.text, 2)?)?;
            let because = because.join(", ");
            self.tell_line(format!(
                "apply: {}@v2 replays beside v1, because {because}",
                view.name
            ))?;
        }
        let resume = self.kill(stage, operator, &worker)?;
        for view in views {
            let id = version(&view.name, 2);
            operator.wait_ready(&id)?;
            self.tell_line(format!("{id} is caught up and ready: every gate holds"))?;
        }
        Ok(resume)
    }

    fn kill(
        &self,
        stage: &mut Stage,
        operator: &mut Operator,
        worker: &WorkerId,
    ) -> anyhow::Result<f64> {
        let limit = Duration::from_secs(120);
        operator.wait("the other worker feeds v2", limit, |client| {
            let mut fed = fed(client, worker);
            fed.any(|heard| {
                let report = &heard.report;
                report.unit.version.number == VersionNumber(2) && report.checkpoint.is_some()
            })
            .then_some(())
        })?;
        let before: Vec<(Unit, ProcessId, u64)> = fed(operator.client(), worker)
            .map(|heard| {
                let Progress {
                    unit,
                    process,
                    checkpoint,
                    ..
                } = &heard.report;
                let seq = checkpoint.as_ref().map_or(0, |stored| stored.0.seq);
                (unit.clone(), process.clone(), seq)
            })
            .collect();
        let pid = stage.kill_worker()?;
        let killed = self.narrator.clock.monotonic();
        stage.start_worker()?;
        let units: Vec<String> = before.iter().map(|(unit, ..)| unit.to_string()).collect();
        self.tell_line(format!(
            "kill -9 {pid}: the worker that feeds {}; started again",
            units.join(", ")
        ))?;
        let resumed = operator.wait("the killed worker has resumed", limit, |client| {
            before
                .iter()
                .all(|unit| is_fed_again(client, unit))
                .then_some(())
        });
        resumed?;
        let resume = millis(self.narrator.clock.monotonic().since(killed));
        self.tell_line(format!(
            "all of it is fed again, from its own checkpoints, after {resume} ms"
        ))?;
        Ok(resume)
    }

    /// Promotes v2, rolls it back, promotes it again, and retires v1.
    fn migrate(
        &self,
        operator: &mut Operator,
        views: &[Migrated],
        readers: &Readers,
        proof: &mut Proof,
    ) -> anyhow::Result<()> {
        let clock = &self.narrator.clock;
        let asked = each(views, |view| operator.promote(&version(&view.name, 2)))?;
        self.follow(readers, 1, "promoted: v2", asked)?;
        self.interrupted.pause(clock, UNTIL_ROLLBACK)?;

        readers.take_behind_max();
        let asked = each(views, |view| operator.rollback(&view.name))?;
        proof.rollback_ms = self.follow(readers, 2, "rolled back: v1", asked)?;
        self.interrupted.pause(clock, LOOK_AROUND)?;
        let behind = millis(readers.take_behind_max());
        proof.rollback_staleness_ms = behind;
        self.tell_line(format!(
            "v1 was fed all the time: the most that an answer was behind is {behind} ms"
        ))?;

        let asked = each(views, |view| operator.promote(&version(&view.name, 2)))?;
        self.follow(readers, 3, "promoted again: v2", asked)?;
        self.interrupted.pause(clock, LOOK_AROUND)?;

        each(views, |view| operator.retire(&version(&view.name, 1)))?;
        self.tell_line("retire: v1 drains, then is deleted")?;
        for view in views {
            let id = version(&view.name, 1);
            operator.wait_role(&id, Role::Retired)?;
            self.tell_line(format!("{id} is retired: nothing of it is left"))?;
        }
        Ok(())
    }

    /// Waits until every reader has seen the alias move, and returns the time since it was asked for.
    fn follow(
        &self,
        readers: &Readers,
        count: usize,
        what: &str,
        asked: Monotonic,
    ) -> anyhow::Result<f64> {
        let clock = &self.narrator.clock;
        let moved = self.interrupted.wait(
            clock,
            "every reader follows the alias",
            FOLLOW_WITHIN,
            || Ok(readers.all_moved(count)),
        )?;
        let took = millis(moved.since(asked));
        self.tell_line(format!(
            "{what} answers every reader, {took} ms after the verb, gates included"
        ))?;
        Ok(took)
    }

    /// Waits until every copy of every live version has taken in the whole log.
    fn wait_for_all(
        &self,
        operator: &mut Operator,
        views: &[Migrated],
        written: u64,
    ) -> anyhow::Result<()> {
        self.tell_line("the shop closes; every document is compared with the shop's own books")?;
        let limit = Duration::from_secs(60);
        operator.wait(
            "the live versions have taken in the whole log",
            limit,
            |client| {
                let units = views
                    .iter()
                    .flat_map(|view| live_units(client, &version(&view.name, 2)));
                let mut done = units.map(|unit| {
                    let heard = client.state().reports().unit(&unit)?;
                    Some(heard.report.done_records)
                });
                done.all(|done| done == Some(written)).then_some(())
            },
        )
    }

    /// Compares what readers are answered with the truth, product by product.
    fn compare(&self, gateway: Gateway, proof: &mut Proof) -> anyhow::Result<()> {
        let mut found: Vec<Option<Document>> = vec![None; self.products];
        let agent = ask::agent();
        let url = format!("http://{}/v1/views/product-search/search", gateway.http);
        let mut cursor: Option<String> = None;
        loop {
            let request = serde_json::json!({"size": PAGE, "search_after": cursor});
            let mut response = agent.post(&url).send_json(&request)?;
            ensure!(
                response.status().is_success(),
                "the final search is answered {}",
                response.status()
            );
            let page: SearchResponse = response.body_mut().read_json()?;
            for (product, document) in ask::documents(&page)? {
                let slot = found.get_mut(product).context("a document of no product")?;
                *slot = document;
            }
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        self.count(&found, proof);
        if gateway.has_cache {
            let mut cache = CacheRows::connect(gateway.redis)?;
            let all: Vec<usize> = (0..self.products).collect();
            for products in all.chunks(PAGE / 2) {
                for (product, document) in cache.read(products)? {
                    found[product] = document;
                }
            }
            self.count(&found, proof);
        }
        Ok(())
    }

    fn count(&self, found: &[Option<Document>], proof: &mut Proof) {
        for (product, document) in found.iter().enumerate() {
            match self.oracle.compare(product, document.as_ref()) {
                Difference::None => {}
                Difference::Lost => proof.lost += 1,
                Difference::Resurrected => proof.resurrected += 1,
                Difference::Differs => proof.differing += 1,
            }
        }
    }
}

/// Asks for something of each view and returns when the first was asked for.
fn each<T: Ord>(
    views: &[Migrated],
    mut ask: impl FnMut(&Migrated) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let asked: Vec<T> = views.iter().map(&mut ask).collect::<anyhow::Result<_>>()?;
    asked.into_iter().min().context("there is no view")
}

/// Iterates over the reports of what a worker feeds.
fn fed<'a>(
    client: &'a CatalogClient,
    worker: &'a WorkerId,
) -> impl Iterator<Item = &'a Heard<Progress>> {
    let units = client.state().reports().units();
    units.filter(move |heard| heard.report.worker == *worker)
}

/// Says whether another run of a process feeds a unit, no less far than it was.
fn is_fed_again(client: &CatalogClient, (unit, process, seq): &(Unit, ProcessId, u64)) -> bool {
    let Some(Heard { report, .. }) = client.state().reports().unit(unit) else {
        return false;
    };
    let is_reading = match report.phase {
        Phase::Starting => false,
        Phase::Replaying | Phase::Tailing => true,
    };
    let goes_on = report
        .checkpoint
        .as_ref()
        .is_some_and(|stored| stored.0.seq >= *seq);
    report.process != *process && is_reading && goes_on
}

fn live_units(client: &CatalogClient, id: &VersionId) -> Vec<Unit> {
    let version = client.state().catalog().version(id);
    version
        .map(|version| version.units().collect())
        .unwrap_or_default()
}
