//! The connections of HTTP: so many at once, and none that waits for ever.
//!
//! A client that sends its request byte by byte, or does not read the answer, would keep its place. So a
//! connection must have some of an answer taken within the idle time, or it ends. A client that has its share of
//! the places is closed on: others, and the probes of an orchestrator, always find one. Handshakes go on beside
//! each other, each within its own time: one that is slow keeps nobody waiting.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep};
use tracing::{debug, error};

use super::Limits;
use super::connection::Connection;
use super::shares::{Client, Shares};
use crate::access::Access;
use crate::metrics::{ConnectionGuard, Metrics, Port};

/// Accepts so many connections at once and no more; others wait in the system's queue.
pub(super) struct BoundedListener {
    door: Door,
    handshakes: JoinSet<io::Result<(BoundedStream, SocketAddr)>>,
}

/// Where clients come in.
struct Door {
    listener: TcpListener,
    access: Arc<Access>,
    permits: Arc<Semaphore>,
    shares: Shares,
    limits: Limits,
    metrics: Arc<Metrics>,
}

impl BoundedListener {
    /// Bounds a listener's connections.
    pub(super) fn new(
        listener: TcpListener,
        access: &Arc<Access>,
        limits: &Limits,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let door = Door {
            listener,
            access: Arc::clone(access),
            permits: Arc::new(Semaphore::new(limits.connections)),
            shares: Shares::new(limits.connections),
            limits: *limits,
            metrics: Arc::clone(metrics),
        };
        Self {
            door,
            handshakes: JoinSet::new(),
        }
    }
}

impl Door {
    /// Waits for a place and for a client to take it, and returns what is left to do for it. Cancel safe.
    async fn next(
        &mut self,
    ) -> impl Future<Output = io::Result<(BoundedStream, SocketAddr)>> + use<> {
        let permits = Arc::clone(&self.permits);
        let permit = permits.acquire_owned().await.expect("never closed");
        let (stream, peer, share) = loop {
            let (stream, peer) = Listener::accept(&mut self.listener).await;
            if let Some(share) = self.shares.try_take(Client::at(peer.ip())) {
                break (stream, peer, share);
            }
            debug!(%peer, "a client has its share of connections already");
        };
        let demands = self.access.demands();
        let limits = self.limits;
        let open = self.metrics.gateway.connected(Port::Http);
        async move {
            let stream = Connection::begin(stream, &demands, limits.answer_time).await?;
            let stream = BoundedStream {
                stream,
                end: Box::pin(sleep(limits.idle_time)),
                idle_time: limits.idle_time,
                _permits: [share, permit],
                _open: open,
            };
            Ok((stream, peer))
        }
    }
}

impl Listener for BoundedListener {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BoundedStream, SocketAddr) {
        loop {
            let begun = tokio::select! {
                begun = self.handshakes.join_next(), if !self.handshakes.is_empty() => begun,
                handshake = self.door.next() => {
                    self.handshakes.spawn(handshake);
                    continue;
                }
            };
            match begun {
                Some(Ok(Ok(connection))) => return connection,
                Some(Ok(Err(fault))) => {
                    debug!(%fault, "a client has left before its first request")
                }
                Some(Err(fault)) => error!(%fault, "a handshake ended"),
                None => {}
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.door.listener.local_addr()
    }
}

/// A connection that gives its place back when it closes.
pub(super) struct BoundedStream {
    stream: Connection,
    /// When it ends; put off by whatever is written.
    end: Pin<Box<Sleep>>,
    idle_time: Duration,
    /// Of its client's share, and of all places, in the order in which they are given back: who comes in by the
    /// place must find the share.
    _permits: [OwnedSemaphorePermit; 2],
    _open: ConnectionGuard,
}

impl BoundedStream {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        let end = Instant::now() + self.idle_time;
        self.end.as_mut().reset(end);
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
