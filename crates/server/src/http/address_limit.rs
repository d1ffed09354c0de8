//! Cap on concurrent connections per client address (ADR 0025).
//!
//! Without it, one address that opens idle sockets takes all of `--max-connections`, and other clients wait in the backlog.
//! A connection counts from the moment a worker receives it until its stream is dropped. The cap is one number for all
//! workers; the table holds one entry per address with an open connection, so `--max-connections` bounds it.
//!
//! Cost: a lock and a hash per connection, none per request.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use frontrow_api::{TrustedProxies, subscriber};

/// The interval between two log lines about refused connections, at least.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// Concurrency limiter of connections, keyed by client address; of IPv6, by /64. Cloning shares it.
#[derive(Clone)]
pub(super) struct AddressLimit(Arc<Shared>);

struct Shared {
    per_address: usize,
    trusted_proxies: TrustedProxies,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    open: HashMap<IpAddr, usize>,
    /// Refused connections since the last log line.
    refused: u64,
    logged_at: Option<Instant>,
}

/// An admitted connection.
pub(super) enum Admitted {
    /// A connection of a trusted proxy. Not counted: it carries the requests of many clients.
    Proxy,
    /// A counted connection.
    Client(Slot),
}

/// The share of one connection in its address's count. Dropping it returns the share.
pub(super) struct Slot {
    limit: AddressLimit,
    address: IpAddr,
}

impl AddressLimit {
    /// Admits at most `per_address` concurrent connections from each address that is not a trusted proxy.
    pub(super) fn new(per_address: usize, trusted_proxies: TrustedProxies) -> Self {
        Self(Arc::new(Shared { per_address, trusted_proxies, table: Mutex::default() }))
    }

    /// Counts a connection of `peer`. `None` when its address has as many as it may; that is logged, once a second at most.
    pub(super) fn admit(&self, peer: IpAddr) -> Option<Admitted> {
        let peer = peer.to_canonical();
        if self.0.trusted_proxies.trusts(peer) {
            return Some(Admitted::Proxy);
        }
        let address = subscriber(peer);
        let mut table = self.table();
        let open = table.open.entry(address).or_default();
        if *open < self.0.per_address {
            *open += 1;
            return Some(Admitted::Client(Slot { limit: self.clone(), address }));
        }
        table.refuse(address);
        None
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // No code that holds this lock can panic.
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn refuse(&mut self, address: IpAddr) {
        self.refused = self.refused.saturating_add(1);
        if self.logged_at.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            tracing::warn!(
                refused = self.refused,
                latest = %address,
                "closed connections over --max-connections-per-address"
            );
            (self.refused, self.logged_at) = (0, Some(Instant::now()));
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Entry::Occupied(mut open) = self.limit.table().open.entry(self.address) {
            *open.get_mut() = open.get().saturating_sub(1);
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn ip(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    #[test]
    fn an_address_takes_no_share_of_another() {
        let limit = AddressLimit::new(2, TrustedProxies::default());
        let first = [limit.admit(ip("192.0.2.1")), limit.admit(ip("::ffff:192.0.2.1"))];
        assert!(first.iter().all(Option::is_some));
        assert!(limit.admit(ip("192.0.2.1")).is_none(), "one address, in either form");
        let other = limit.admit(ip("192.0.2.2"));
        assert!(other.is_some());
        drop(first);
        assert!(limit.admit(ip("192.0.2.1")).is_some(), "ended connections do not count");
        drop(other);
        assert!(limit.table().open.is_empty(), "an address without connections is not in the table");
    }

    #[test]
    fn a_64_of_ipv6_is_one_address() {
        let limit = AddressLimit::new(1, TrustedProxies::default());
        let first = limit.admit(ip("2001:db8:1:2::1"));
        assert!(first.is_some() && limit.admit(ip("2001:db8:1:2:ffff::2")).is_none());
        assert!(limit.admit(ip("2001:db8:1:3::1")).is_some());
    }

    #[test]
    fn trusted_proxies_are_not_counted() {
        let limit = AddressLimit::new(1, "10.0.0.0/8".parse().unwrap());
        let admitted: Vec<_> = (0..5).map(|_| limit.admit(ip("10.1.2.3"))).collect();
        assert!(admitted.iter().all(|admitted| matches!(admitted, Some(Admitted::Proxy))));
        assert!(limit.table().open.is_empty());
    }

    #[test]
    fn counts_are_exact_when_workers_share_the_limit() {
        let limit = AddressLimit::new(3, TrustedProxies::default());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let slots: Vec<_> = (0..3).filter_map(|_| limit.admit(ip("192.0.2.1"))).collect();
                        assert!(limit.table().open.values().all(|open| *open <= 3));
                        drop(slots);
                    }
                });
            }
        });
        assert!(limit.table().open.is_empty(), "no count leaks");
        assert!(limit.table().logged_at.is_some(), "some were refused");
    }
}
