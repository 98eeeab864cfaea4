//! A conversation without sockets and rows.

use std::sync::Arc;

use super::super::{Limits, Routes};
use super::decode::Decoder;
use super::plan::{Plan, plan};
use super::reply::Reply;
use super::session::Session;
use crate::access::Demands;

/// Returns what is answered to bytes that arrive in pieces, reads of rows left out, and whether the client
/// is logged in at the end.
pub(in super::super) fn converse<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    demands: &Arc<Demands>,
    routes: &Routes,
    limits: &Limits,
) -> (Vec<u8>, bool) {
    let mut session = Session::new(1, Arc::clone(demands));
    let mut decoder = Decoder::default();
    let mut answers = Vec::new();
    for piece in pieces {
        decoder.feed(piece);
        loop {
            let limits = session.limits(*limits);
            let (reply, ends) = match decoder.next(&limits) {
                Ok(None) => break,
                Ok(Some(request)) => match plan(request, &mut session, Some(routes), &limits) {
                    Plan::Now(reply) => (reply, false),
                    Plan::Close(reply) => (reply, true),
                    Plan::Read(reads, _) => {
                        assert!(session.is_admitted() && !reads.is_empty());
                        continue;
                    }
                },
                Err(fault) => (Reply::Error(format!("ERR {fault}")), true),
            };
            reply.encode(session.protocol(), &mut answers);
            if ends {
                return (answers, session.is_admitted());
            }
        }
    }
    (answers, session.is_admitted())
}
