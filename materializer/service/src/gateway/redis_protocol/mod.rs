//! The port of the Redis protocol: rows by alias, for any Redis client.
//!
//! The commands of a connection that have arrived are planned under one snapshot of the routes, and
//! answered and written in order, part by part. So one version answers each command, on one connection
//! the alias never goes back, and a client that does not read is not read for.

mod assemble;
mod commands;
mod decode;
pub(super) mod hostile;
mod plan;
mod reply;
mod session;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::decode::Decoder;
use self::plan::{Plan, plan};
use self::reply::{Protocol, Reply};
use self::session::Session;
use super::ReadError;
use super::connection::Connection;
use super::rounds::Held;
use super::rows::{Answers, Part};
use super::server::{Shared, Stop};
use crate::metrics::{Op, Outcome, Port};

/// Accepts connections until the stop, then waits until they are closed.
pub(super) async fn serve(mut listener: TcpListener, shared: &Arc<Shared>, mut stop: Stop) {
    let permits = Arc::new(Semaphore::new(shared.limits.connections));
    let mut accepted = 0;
    let mut connections = JoinSet::new();
    loop {
        let (stream, _peer) = tokio::select! {
            stream = Listener::accept(&mut listener) => stream,
            () = stop.told() => break,
            Some(_ended) = connections.join_next() => continue,
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            // Who does not take it in is closed on all the same.
            stream
                .try_write(b"-ERR max number of clients reached\r\n")
                .ok();
            continue;
        };
        accepted += 1;
        let session = Session::new(accepted, shared.access.demands());
        let (shared, stop) = (Arc::clone(shared), stop.clone());
        connections.spawn(async move {
            let _permit = permit;
            // A connection that broke off has nobody left to be told.
            converse(stream, session, &shared, stop).await.ok();
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Answers a client until it leaves, breaks the protocol, or the stop.
async fn converse(
    stream: TcpStream,
    mut session: Session,
    shared: &Shared,
    mut stop: Stop,
) -> io::Result<()> {
    let _open = shared.metrics.gateway.connected(Port::Redis);
    let mut begun = shared.clock.monotonic();
    let login_end = begun.plus(shared.limits.answer_time);
    let mut stream =
        Connection::begin(stream, session.demands(), shared.limits.answer_time).await?;
    let mut decoder = Decoder::default();
    let mut arrived = vec![0; 16 * 1024];
    loop {
        let (mut plans, next) = plan_arrived(&mut decoder, &mut session, shared);
        while !plans.is_empty() {
            let (replies, _held) = answer_some(&mut plans, shared).await;
            timeout(shared.limits.answer_time, stream.write_all(&replies)).await??;
            begun = shared.clock.monotonic();
        }
        match next {
            Next::Close => return Ok(()),
            Next::Plan if stop.is_told() => return Ok(()),
            Next::Plan => continue,
            Next::Read => {}
        }
        // Idle clients stay, as with Redis; one whose command does not arrive whole, or that does not log
        // in, would be kept for ever.
        let is_idle = decoder.is_idle();
        let end = if session.is_admitted() {
            begun.plus(shared.limits.answer_time)
        } else {
            login_end
        };
        let left = end.since(shared.clock.monotonic());
        let read = tokio::select! {
            read = stream.read(&mut arrived) => read?,
            () = sleep(left), if !(is_idle && session.is_admitted()) => return Ok(()),
            () = stop.told() => return Ok(()),
        };
        if read == 0 {
            return Ok(());
        }
        if is_idle {
            begun = shared.clock.monotonic();
        }
        decoder.feed(&arrived[..read]);
    }
}

/// What follows once the planned commands are answered.
enum Next {
    /// More bytes are needed.
    Read,
    /// More commands have arrived.
    Plan,
    /// The connection ends.
    Close,
}

/// A planned command, and how its reply is written.
type Planned = (Plan, Protocol);

/// Plans the commands that have arrived, a bounded number of them.
fn plan_arrived(
    decoder: &mut Decoder,
    session: &mut Session,
    shared: &Shared,
) -> (VecDeque<Planned>, Next) {
    let routes = shared.routes.borrow().clone();
    let mut plans = VecDeque::new();
    let mut words = 0;
    while plans.len() < shared.limits.pipeline_commands && words < shared.limits.request_arguments {
        // Asked each time: the command before may have been the login.
        let limits = session.limits(shared.limits);
        match decoder.next(&limits) {
            Ok(Some(request)) => {
                words += request.len();
                let plan = plan(request, session, routes.as_deref(), &limits);
                if !session.is_admitted() {
                    shared.metrics.gateway.refused(Port::Redis);
                }
                let closes = matches!(plan, Plan::Close(_));
                // `HELLO` answers in the protocol that it chooses.
                plans.push_back((plan, session.protocol()));
                if closes {
                    return (plans, Next::Close);
                }
            }
            Ok(None) => return (plans, Next::Read),
            Err(fault) => {
                let told = Plan::Close(Reply::Error(format!("ERR {fault}")));
                plans.push_back((told, session.protocol()));
                return (plans, Next::Close);
            }
        }
    }
    (plans, Next::Plan)
}

/// Answers the first of the commands, at least one, and takes them off. Returns their replies as bytes,
/// and the memory that they take until they are written.
async fn answer_some(plans: &mut VecDeque<Planned>, shared: &Shared) -> (Vec<u8>, Held) {
    let began = shared.clock.monotonic();
    let reads: Vec<_> = plans.iter().filter_map(|(plan, _)| plan.reads()).collect();
    let Part { answers, held } = shared.rows.read(&reads).await;
    let elapsed = shared.clock.monotonic().since(began);
    let mut answers = answers.into_iter();
    let mut bytes = Vec::new();
    while let Some((plan, protocol)) = plans.pop_front() {
        let reply = match plan {
            Plan::Now(reply) | Plan::Close(reply) => reply,
            Plan::Read(reads, assemble) => {
                let Some(answers) = answers.next() else {
                    plans.push_front((Plan::Read(reads, assemble), protocol));
                    break;
                };
                count_command(shared, &answers, elapsed);
                assemble.reply(answers)
            }
        };
        reply.encode(protocol, &mut bytes);
    }
    (bytes, held)
}

fn count_command(shared: &Shared, answers: &Answers, elapsed: Duration) {
    let fault = answers.iter().find_map(|answer| answer.as_ref().err());
    let outcome = fault.map_or(Outcome::Ok, ReadError::outcome);
    shared.metrics.gateway.answered(Op::Row, outcome, elapsed);
}
