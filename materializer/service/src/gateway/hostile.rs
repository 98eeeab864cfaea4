//! The Redis protocol under any bytes: for `tests/hostile` and `fuzz/`.

use std::sync::Arc;

use super::redis_protocol::hostile::converse;
use super::{Limits, Routes};
use crate::access::Demands;
use crate::config::{AccessSection, Secret};

/// The token that the second of the two conversations demands.
const TOKEN: &str = "reader-0123456789abcdef";

/// Has a client of the gateway say these bytes: all at once, byte by byte, and where a token is demanded.
///
/// # Panics
/// Where the answers depend on how the bytes arrive, or a client is let in without the token.
pub fn redis_protocol(bytes: &[u8]) {
    let nothing = demands(AccessSection::default());
    let token = demands(AccessSection {
        token: Some(Secret::new(TOKEN.to_owned())),
        ..AccessSection::default()
    });
    let limits = Limits {
        key_bytes: 64,
        request_bytes: 256,
        ..Limits::default()
    };
    let routes = Routes::default();
    let (whole, _) = converse([bytes], &nothing, &routes, &limits);
    let (split, _) = converse(bytes.chunks(1), &nothing, &routes, &limits);
    assert_eq!(whole, split, "the same bytes give the same answers");
    let (_, is_in) = converse([bytes], &token, &routes, &limits);
    let knows_it = bytes
        .windows(TOKEN.len())
        .any(|part| part == TOKEN.as_bytes());
    assert!(knows_it || !is_in, "a client is in without the token");
}

fn demands(section: AccessSection) -> Arc<Demands> {
    Arc::new(section.read().expect("no files"))
}
