//! A TCP proxy whose connections can be cut, refused and stalled: what a network does between two machines.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often threads of the proxy look at what they are told.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Network {
    /// Bytes go through.
    Well,
    /// Connections stand, and nothing goes through any more: a packet filter that drops.
    Stalled,
    /// Connections are cut, and new ones closed at once.
    Cut,
}

struct Shared {
    upstream: SocketAddr,
    network: AtomicU8,
    ended: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Shared {
    fn is(&self, network: Network) -> bool {
        self.network.load(Ordering::SeqCst) == discriminant(network)
    }
}

const fn discriminant(network: Network) -> u8 {
    match network {
        Network::Well => 0,
        Network::Stalled => 1,
        Network::Cut => 2,
    }
}

/// A listener on the loopback before a server.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens before a port of the loopback, which need not be there yet.
    ///
    /// # Panics
    /// Where no port or no thread can be had.
    #[must_use]
    pub fn before(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        listener.set_nonblocking(true).expect("a socket");
        let shared = Arc::new(Shared {
            upstream: SocketAddr::from(([127, 0, 0, 1], upstream)),
            network: AtomicU8::new(discriminant(Network::Well)),
            ended: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let ours = Arc::clone(&shared);
        let listening = thread::Builder::new()
            .name("proxy".into())
            .spawn(move || listen(&listener, &ours));
        Self {
            port,
            shared,
            listening: Some(listening.expect("a thread")),
        }
    }

    /// Says what the network does from now on.
    ///
    /// # Panics
    /// Where a thread of the proxy panicked.
    pub fn set(&self, network: Network) {
        self.shared
            .network
            .store(discriminant(network), Ordering::SeqCst);
        if network == Network::Cut {
            let mut open = self.shared.open.lock().expect("no panic");
            for stream in open.drain(..) {
                // A connection that is closed already is as cut as it can be.
                let _closed = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.set(Network::Cut);
        if let Some(listening) = self.listening.take() {
            let _ended = listening.join();
        }
    }
}

fn listen(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.ended.load(Ordering::SeqCst) {
        let Ok((client, _)) = listener.accept() else {
            thread::sleep(LOOK_EVERY);
            continue;
        };
        if shared.is(Network::Cut) {
            continue; // dropped, and so closed
        }
        let Ok(server) = TcpStream::connect(shared.upstream) else {
            continue;
        };
        for (from, to) in [(&client, &server), (&server, &client)] {
            if let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) {
                let shared = Arc::clone(shared);
                thread::spawn(move || copy(from, to, &shared));
            }
        }
        let mut open = shared.open.lock().expect("no panic");
        open.extend([client, server]);
    }
}

/// Copies bytes one way until either side closes, waiting while the network is stalled.
fn copy(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        while shared.is(Network::Stalled) && !shared.ended.load(Ordering::SeqCst) {
            thread::sleep(LOOK_EVERY);
        }
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _closed = to.shutdown(Shutdown::Both);
}
