//! The connections of HTTP: so many at once, and none that waits for ever.
//!
//! A client that sends its request byte by byte, or does not read the answer, would keep its place. So a
//! connection must have some of an answer taken within the idle time, or it ends.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

use super::Limits;
use crate::metrics::{ConnectionGuard, Metrics, Port};

/// Accepts so many connections at once and no more; others wait in the system's queue.
pub(super) struct BoundedListener {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    idle_time: Duration,
    metrics: Arc<Metrics>,
}

impl BoundedListener {
    /// Bounds a listener's connections.
    pub(super) fn new(listener: TcpListener, limits: &Limits, metrics: &Arc<Metrics>) -> Self {
        Self {
            listener,
            permits: Arc::new(Semaphore::new(limits.connections)),
            idle_time: limits.idle_time,
            metrics: Arc::clone(metrics),
        }
    }
}

impl Listener for BoundedListener {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BoundedStream, SocketAddr) {
        let permits = Arc::clone(&self.permits);
        let permit = permits.acquire_owned().await.expect("never closed");
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        // Without it small answers wait for the client's acknowledgements; they are right all the same.
        stream.set_nodelay(true).ok();
        let stream = BoundedStream {
            stream,
            end: Box::pin(sleep(self.idle_time)),
            idle_time: self.idle_time,
            _permit: permit,
            _open: self.metrics.gateway.connected(Port::Http),
        };
        (stream, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that gives its place back when it closes.
pub(super) struct BoundedStream {
    stream: TcpStream,
    /// When it ends; put off by whatever is written.
    end: Pin<Box<Sleep>>,
    idle_time: Duration,
    _permit: OwnedSemaphorePermit,
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
