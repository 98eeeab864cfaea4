//! What one client may have at once: half of the places, so that the other half is left to all others,
//! whatever it asks.
//!
//! A client is the address that its connections come from. Readers behind a proxy are one client, and share
//! its half. An address of IPv6 is as good as any other of its network, which one machine has to itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::listener::BoundedListener;

/// Who asks, as far as shares go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Client(IpAddr);

/// The bits of an IPv6 address that name its network.
const NETWORK: u128 = !0 << 64;

impl Client {
    /// Returns the client at an address.
    pub(super) fn at(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
        })
    }

    /// Returns its address, or that of its network.
    pub(super) fn address(self) -> IpAddr {
        self.0
    }
}

impl Connected<IncomingStream<'_, BoundedListener>> for Client {
    fn connect_info(stream: IncomingStream<'_, BoundedListener>) -> Self {
        Self::at(stream.remote_addr().ip())
    }
}

/// The shares of all clients in some places. Cancel safe: who gives up waiting takes none.
#[derive(Debug)]
pub(super) struct Shares {
    each: usize,
    /// Of those who have a place, or wait for one.
    of: Mutex<BTreeMap<Client, Weak<Semaphore>>>,
}

impl Shares {
    /// Shares so many places.
    pub(super) fn new(places: usize) -> Self {
        Self {
            each: (places / 2).max(1),
            of: Mutex::default(),
        }
    }

    /// Waits until a client has less than its share, and counts one place more; its drop gives it back.
    pub(super) async fn take(&self, client: Client) -> OwnedSemaphorePermit {
        let share = self.share(client);
        share.acquire_owned().await.expect("never closed")
    }

    /// Counts one place more of a client; `None` where it has its share.
    pub(super) fn try_take(&self, client: Client) -> Option<OwnedSemaphorePermit> {
        self.share(client).try_acquire_owned().ok()
    }

    fn share(&self, client: Client) -> Arc<Semaphore> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = of.get(&client).and_then(Weak::upgrade) {
            return share;
        }
        of.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.each));
        of.insert(client, Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> Client {
        Client::at(address.parse().unwrap())
    }

    #[test]
    fn a_client_has_half_of_the_places_and_nobody_is_remembered_for_nothing() {
        let shares = Shares::new(5);
        let (one, other) = (client("10.0.0.1"), client("10.0.0.2"));
        let held: Vec<_> = (0..2).map(|_| shares.try_take(one).unwrap()).collect();
        assert!(shares.try_take(one).is_none());
        assert!(shares.try_take(other).is_some());
        drop(held);
        assert!(shares.try_take(one).is_some());
        assert!(shares.try_take(client("10.0.0.3")).is_some());
        assert_eq!(shares.of.lock().unwrap().len(), 1);
        let only = Shares::new(1);
        assert!(only.try_take(one).is_some(), "nobody's share is nothing");
    }

    #[test]
    fn a_client_is_an_address_or_a_network_of_ipv6() {
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:2"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
        assert_ne!(client("10.0.0.1"), client("10.0.0.2"));
        let one = client("2001:db8::1");
        assert_eq!(Client::at(one.address()), one);
    }
}
