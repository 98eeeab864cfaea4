//! A relay before a server whose connections can be held up: what a client sent stays unread by the
//! server, as in the buffer of a stalled network, until the gate is opened.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use materializer_sinks::redis::RedisSettings;

/// Whether requests pass, by connection: those before `held_below` wait.
#[derive(Default)]
struct State {
    held_below: usize,
}

pub(crate) struct Gate {
    address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
    /// A message for each connection whose last request the server has answered.
    ended: Receiver<()>,
}

impl Gate {
    /// Opens a relay to a server's socket. Its threads end with their connections.
    pub(crate) fn open(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let (done, ended) = sync_channel(100);
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                let client = client.expect("a connection");
                let server = UnixStream::connect(&socket).expect("the server");
                let (back, forth) = (client.try_clone(), server.try_clone());
                let (back, forth) = (back.expect("a clone"), forth.expect("a clone"));
                let shared = Arc::clone(&shared);
                thread::spawn(move || forward(client, forth, number, &shared));
                let done = done.clone();
                thread::spawn(move || {
                    answer(server, back);
                    let _nobody_waits = done.send(());
                });
            }
        });
        Self {
            address,
            state,
            ended,
        }
    }

    pub(crate) fn settings(&self) -> RedisSettings {
        RedisSettings::parse(&format!("redis://{}", self.address)).expect("an address")
    }

    /// Holds up the first connections, `count` of them; later ones pass.
    pub(crate) fn hold_first(&self, count: usize) {
        self.state.0.lock().expect("the state").held_below = count;
    }

    /// Lets everything pass.
    pub(crate) fn release(&self) {
        self.state.0.lock().expect("the state").held_below = 0;
        self.state.1.notify_all();
    }

    /// Waits until a connection that its client has left is answered to the end.
    pub(crate) fn wait_for_an_end(&self) {
        let limit = Duration::from_secs(30);
        self.ended.recv_timeout(limit).expect("a connection ended");
    }
}

/// Carries requests; at the client's end the server is told so, after all that was held up.
fn forward(
    mut client: TcpStream,
    mut server: UnixStream,
    number: usize,
    (state, changed): &(Mutex<State>, Condvar),
) {
    let mut buffer = [0; 65_536];
    while let Ok(count) = client.read(&mut buffer) {
        let state = state.lock().expect("the state");
        drop(changed.wait_while(state, |state| number < state.held_below));
        if count == 0 || server.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _closed = server.shutdown(Shutdown::Write);
}

/// Carries replies until the server has no more, also where the client is gone.
fn answer(mut server: UnixStream, mut client: TcpStream) {
    let mut buffer = [0; 65_536];
    while let Ok(count) = server.read(&mut buffer) {
        if count == 0 {
            break;
        }
        let _client_is_gone = client.write_all(&buffer[..count]);
    }
    let _closed = client.shutdown(Shutdown::Both);
}
