//! Searches of an index, as anybody who reaches the gateway can ask them.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use materializer::clock::SystemClock;
use materializer_model::ports::{Expect, Sink as _};
use materializer_model::{
    Batch, Change, Checkpoint, Commit, Key, Mutation, Offset, Origin, Partition, Row, Topic,
};
use materializer_sinks::tantivy::search::{SearchError, SearchLimits, SearchRequest};
use materializer_sinks::tantivy::{IndexCopy, TantivySettings, TantivySink};
use materializer_view::{fingerprint, parse};
use serde_json::json;
use tempfile::TempDir;

/// How many rows are searched.
const ROWS: u64 = 200;

/// The JSON of a search: it is answered, refused, or ends at a limit; nothing is broken by it.
///
/// # Panics
/// Where something is.
pub fn search(bytes: &[u8]) {
    static INDEX: LazyLock<Index> = LazyLock::new(Index::new);
    let Ok(request) = serde_json::from_slice::<SearchRequest>(bytes) else {
        return;
    };
    let limits = SearchLimits {
        time: Duration::from_secs(1),
        ..SearchLimits::new(Arc::new(SystemClock::start()))
    };
    match INDEX.copy.search(&request, &limits) {
        Ok(answer) => {
            let told = serde_json::to_vec(&answer).expect("an answer is told as JSON");
            assert!(answer.total <= ROWS, "{}", String::from_utf8_lossy(&told));
        }
        Err(
            SearchError::BadRequest { .. } | SearchError::TooLarge(_) | SearchError::Timeout(_),
        ) => {}
        Err(fault @ (SearchError::Failed(_) | SearchError::Unservable(_))) => panic!("{fault:?}"),
    }
}

/// An index of a few rows with every kind of field; its folder goes with it.
struct Index {
    copy: Arc<IndexCopy>,
    /// Kept, since a copy is served for as long as it is written.
    _sink: Mutex<TantivySink>,
    _folder: TempDir,
}

impl Index {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let settings = TantivySettings {
            writer_memory_bytes: 15_000_000,
            disk_free_bytes_min: 0,
            ..TantivySettings::new(folder.path(), "main".parse().expect("a name"))
        };
        let views = parse("search.yaml", include_str!("search.yaml")).expect("no fault");
        let unit = "products/v1/c0/s0".parse().expect("a unit");
        let fingerprint = fingerprint(&views[0]);
        let mut sink = TantivySink::new(settings, &unit, &views[0], &fingerprint).expect("a sink");
        let token = "catalog 1 claim".parse().expect("a token");
        sink.open(&token, Expect::Maybe).expect("an empty folder");
        let mut batch = Batch::default();
        (0..ROWS).for_each(|number| batch.put(row(number)));
        let commit = Commit {
            batch,
            previous: None,
            checkpoint: Checkpoint::decode(CHECKPOINT.as_bytes()).expect("a checkpoint"),
        };
        sink.submit(Arc::new(commit)).expect("a commit");
        let mut waits = 0;
        while sink
            .settle(Duration::from_millis(100))
            .expect("a commit")
            .is_none()
        {
            waits += 1;
            assert!(waits < 600, "the commit is done within a minute");
        }
        Self {
            copy: sink.copy(),
            _sink: Mutex::new(sink),
            _folder: folder,
        }
    }
}

/// One commit, its bar passed.
const CHECKPOINT: &str = r#"{"f":1,"seq":1,"topics":{"shop":{"id":"topic-id","p":{"0":[200,-1,0]}}},"bar":{"shop":{"0":0}},"counts":{"skipped":0,"failed":0,"dead":0}}"#;

fn row(number: u64) -> Mutation {
    let brands = ["Acme", "Zeta", "Möbius"];
    let brand = brands[usize::try_from(number % 3).expect("small")];
    let colour = ["Red", "Blue"][usize::from(!number.is_multiple_of(2))];
    let row = json!({
        "title": format!("{colour} running shoes <b>no {number}</b>"),
        "brand": brand,
        "price": number % 7,
        "stock": number % 3,
        "added": format!("2024-01-{:02}T00:00:00Z", number % 28 + 1),
        "new": number.is_multiple_of(2),
        "specs": {"size": number % 10, "colour": "dark red"},
    });
    Mutation {
        key: Key::new(format!("key-{number}").as_bytes()),
        change: Change::Upsert {
            row: Row::new(row.to_string().as_bytes()),
            expires_at: None,
        },
        origin: Origin {
            topic: Topic::new("shop"),
            partition: Partition(0),
            offset: Offset(number),
        },
    }
}
