//! Readers while the alias moves: one version answers each request, and no reader sees it go back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use materializer_sinks::tantivy::search::{SearchRequest, SearchResponse};
use serde_json::Value;

use super::*;

/// How often the alias moves.
const SWAPS: u64 = 200;

/// Version `n`'s rows say `n`, and its alias epoch is `n`.
fn version(number: u64) -> String {
    format!("products@v{number}")
}

/// Moves the alias on until each of `readers` has read while it moved.
fn swap(bed: &Bed, readers: &[AtomicU64], move_to: impl Fn(u64)) -> u64 {
    let read = || {
        readers
            .iter()
            .map(|reads| reads.load(Ordering::Relaxed))
            .min()
    };
    let mut number = 1;
    let least = read().unwrap();
    while number < SWAPS || read().unwrap() < least + 20 {
        number += 1;
        move_to(number);
        thread::yield_now();
    }
    assert!(bed.gateway.redis_address().is_some());
    number
}

#[test]
fn rows_of_one_command_are_of_one_version_and_no_connection_sees_the_alias_go_back() {
    let bed = Bed::start(Limits::default());
    let keys: Vec<String> = (0..5).map(|at| format!("product:{at}")).collect();
    let move_to = |number: u64| {
        let version = version(number);
        for key in &keys {
            bed.store.put_text(&version, key, &number.to_string());
        }
        // Redis first and the routes later, or the other way round: both happen.
        let route = || bed.route([redis_route(&version, number, "product:", RedisShape::Json)]);
        if number.is_multiple_of(2) {
            route();
        }
        bed.store.point(&version, number);
        route();
    };
    move_to(1);
    let done = AtomicBool::new(false);
    let reads = [const { AtomicU64::new(0) }; 3];
    thread::scope(|scope| {
        for reads in &reads {
            let address = bed.gateway.redis_address().unwrap();
            let (keys, done) = (&keys, &done);
            scope.spawn(move || {
                let client = ::redis::Client::open(format!("redis://{address}")).unwrap();
                let mut client = client.get_connection().unwrap();
                let mut newest = 0;
                while !done.load(Ordering::Relaxed) {
                    let mut pipeline = ::redis::pipe();
                    pipeline.mget(keys).mget(keys);
                    let answers: Vec<Vec<u64>> = pipeline.query(&mut client).unwrap();
                    for rows in answers {
                        assert!(rows.iter().all(|row| *row == rows[0]), "mixed: {rows:?}");
                        assert!(rows[0] >= newest, "went back to {} from {newest}", rows[0]);
                        newest = rows[0];
                    }
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        swap(&bed, &reads, move_to);
        done.store(true, Ordering::Relaxed);
    });
}

/// A copy whose every answer says its number.
struct Numbered(u64);

impl ServedCopy for Numbered {
    fn document(&self, _key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(Some(self.0.to_string().into_bytes()))
    }

    fn search(&self, _request: &SearchRequest) -> Result<SearchResponse, ReadError> {
        let found = format!(r#"{{"total":{},"hits":[]}}"#, self.0);
        Ok(serde_json::from_str(&found).unwrap())
    }
}

#[test]
fn the_version_in_the_headers_is_the_one_that_answered_and_epochs_are_monotonic() {
    let bed = Bed::start(Limits::default());
    let address = bed.gateway.http_address();
    let unit = |number: u64| format!("products/v{number}/c0/s0");
    let move_to = |number: u64| {
        let copy = Arc::new(Numbered(number));
        bed.copies.serve(unit(number).parse().unwrap(), copy);
        bed.route([tantivy_route(
            &version(number),
            number,
            &[(&unit(number), address)],
        )]);
    };
    move_to(1);
    let done = AtomicBool::new(false);
    let reads = [const { AtomicU64::new(0) }; 3];
    thread::scope(|scope| {
        for reads in &reads {
            let done = &done;
            scope.spawn(move || {
                let config = ureq::Agent::config_builder().proxy(None);
                let agent: ureq::Agent = config
                    .timeout_global(Some(Duration::from_secs(10)))
                    .build()
                    .into();
                let mut newest = 0;
                while !done.load(Ordering::Relaxed) {
                    for path in ["documents/1?", "search?q=x&"] {
                        let url = format!(
                            "http://{address}/v1/views/products/{path}min_alias_epoch={newest}"
                        );
                        let mut answer = agent.get(url).call().unwrap();
                        let header = |name| answer.headers()[name].to_str().unwrap().to_owned();
                        let (named, epoch) = (
                            header("materializer-version"),
                            header("materializer-alias-epoch"),
                        );
                        let answered: Value = answer.body_mut().read_json().unwrap();
                        let answered = answered["total"].as_u64().or(answered.as_u64()).unwrap();
                        assert_eq!(named, version(answered));
                        assert_eq!(epoch, answered.to_string());
                        assert!(answered >= newest, "went back to {answered} from {newest}");
                        newest = answered;
                    }
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let last = swap(&bed, &reads, move_to);
        done.store(true, Ordering::Relaxed);
        last
    });
}
