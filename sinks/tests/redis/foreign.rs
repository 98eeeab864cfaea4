//! Keys of ours that somebody else wrote over.

use std::time::Duration;

use materializer_model::ports::{SinkAdmin, SinkError};
use materializer_model::{Offset, VersionId};

use crate::faults::{contents, write_rows};
use crate::place::admin;
use crate::server::Server;
use crate::serving::fill;

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn a_version_whose_token_somebody_overwrote_is_deleted_and_one_of_another_catalog_is_not() {
    let server = Server::start();
    let version: VersionId = "products@v1".parse().expect("a version");
    let key = "main::products:v1:s0:token";
    for (foreign, is_deleted) in [("hello", true), ("", true), ("another 7 claim", false)] {
        server.command::<()>("FLUSHALL");
        fill(&server);
        if foreign.is_empty() {
            server.command::<u64>(&format!("DEL {key}"));
            server.command::<u64>(&format!("LPUSH {key} hello"));
        } else {
            server.set(key, foreign);
        }
        let mut coordinator = admin(server.settings());
        let retired = coordinator.retire(&version, Offset(9), Duration::MAX);
        let row = server.command::<u64>("EXISTS main:products:v1:product:key-0");
        assert_eq!(row == 0, is_deleted, "{foreign}: {retired:?}");
        if is_deleted {
            assert!(retired.is_ok_and(|retired| retired.finished), "{foreign}");
            let token: String = server.command(&format!("GET {key}"));
            assert_eq!(token, "retired 9", "nobody comes back");
        } else {
            assert!(matches!(retired, Err(SinkError::Damaged(_))), "{retired:?}");
        }
        let other = server.command::<u64>("EXISTS main:products:v2:product:key-0");
        assert_eq!(other, 1, "another version's");
    }
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn a_row_whose_key_somebody_made_another_type_is_read_as_no_row_that_was_written() {
    let server = Server::start();
    write_rows(&server, 2, "row");
    server.command::<u64>("DEL main:products:v1:product:key-0");
    server.command::<u64>("LPUSH main:products:v1:product:key-0 foreign");
    let rows = ["a key of another type", "row"].map(str::to_owned);
    assert_eq!(contents(&server), (Some(1), rows.into()));
}
