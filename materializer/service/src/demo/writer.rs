//! Writes the shop's events to the log: a genesis as fast as it goes, then a few hundred a second.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use materializer_kafka::BulkWriter;
use materializer_model::{Clock, Topic};

use super::oracle::Oracle;
use super::shop::{self, Shop};
use crate::clock::SystemClock;
use crate::stop::Stop;

/// How many events are written at once in the beginning.
const GENESIS_BATCH: u64 = 10_000;
/// How many are written at once later.
const BATCH: u64 = 20;
/// How long the shop rests between two later batches: 500 events a second.
const REST: Duration = Duration::from_millis(40);

/// Writes events and tells the oracle before and after.
pub(super) struct Writer {
    pub(super) shop: Shop,
    pub(super) oracle: Arc<Oracle>,
    pub(super) topic: Topic,
    pub(super) log: BulkWriter,
    pub(super) clock: SystemClock,
    pub(super) written: u64,
}

impl Writer {
    /// Writes the events that are there before anybody reads.
    pub(super) fn genesis(&mut self, events: u64) -> anyhow::Result<()> {
        while self.written < events {
            self.write(GENESIS_BATCH.min(events - self.written))?;
        }
        Ok(())
    }

    fn write(&mut self, count: u64) -> anyhow::Result<()> {
        let events: Vec<_> = (0..count).map(|_| self.shop.next()).collect();
        let records: Vec<_> = events
            .iter()
            .map(|event| (shop::key(event.product), self.shop.value(*event)))
            .collect();
        self.oracle.sending(&events);
        let records = records
            .iter()
            .map(|(key, value)| (key.as_bytes(), value.as_deref()));
        self.log.append(&self.topic, records)?;
        self.oracle.stored(&events, self.clock.monotonic());
        self.written += count;
        Ok(())
    }
}

/// The shop while it goes on selling. It closes when this is dropped.
pub(super) struct Selling {
    stop: Stop,
    thread: Option<JoinHandle<anyhow::Result<u64>>>,
}

impl Selling {
    /// Goes on writing on a thread.
    pub(super) fn start(mut writer: Writer) -> anyhow::Result<Self> {
        let stop = Stop::default();
        let work = {
            let stop = stop.clone();
            move || {
                while !stop.is_set() {
                    writer.write(BATCH)?;
                    stop.wait(REST);
                }
                Ok(writer.written)
            }
        };
        let thread = thread::Builder::new().name("shop".to_owned()).spawn(work);
        Ok(Self {
            stop,
            thread: Some(thread.context("start the shop")?),
        })
    }

    /// Closes the shop and returns how many events there were in all.
    pub(super) fn close(mut self) -> anyhow::Result<u64> {
        self.stop.set();
        let thread = self.thread.take().expect("taken only here");
        thread
            .join()
            .map_err(|_| anyhow!("the shop panicked"))?
            .context("write the shop's log")
    }
}

impl Drop for Selling {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            // Only after an error, which is told already.
            drop(thread.join());
        }
    }
}
