//! A client's connection, in the clear or under TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::access::Demands;

/// A client's connection.
pub(super) enum Connection {
    /// In the clear.
    Plain(TcpStream),
    /// Under TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// Begins to talk to a client as it is demanded: under TLS, if its handshake is done in time.
    ///
    /// # Errors
    /// Where the client leaves, takes too long, or speaks no TLS.
    pub(super) async fn begin(
        stream: TcpStream,
        demands: &Demands,
        within: Duration,
    ) -> io::Result<Self> {
        // Without it small answers wait for the client's acknowledgements; they are right all the same.
        stream.set_nodelay(true).ok();
        let Some(server) = demands.server() else {
            return Ok(Self::Plain(stream));
        };
        let handshake = TlsAcceptor::from(server.clone()).accept(stream);
        Ok(Self::Tls(Box::new(timeout(within, handshake).await??)))
    }

    fn pinned(&mut self) -> Pin<&mut (dyn Both + '_)> {
        match self {
            Self::Plain(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(&mut **stream),
        }
    }
}

/// Both directions.
trait Both: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Both for T {}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.pinned().poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.pinned().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pinned().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pinned().poll_shutdown(context)
    }
}
