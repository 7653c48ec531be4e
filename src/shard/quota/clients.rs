//! [`ClientLimits`]: how many connections each client address has, and how fast it upgrades. It is
//! the one table that the shards share, asked when a connection's address becomes known, when that
//! upgrades and when it ends; never for a message. If no such limit is set there is no table.
//!
//! Exact: an address is in one stripe, and a stripe is behind a lock that is held for one look-up.
//! Which stripe is nobody's to choose: the hash is keyed by chance. Bounded: an address is kept
//! only while it has a connection here or has upgraded within the last second.
//!
//! Knows addresses and numbers. Must not know connections, nor where the time comes from.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Limits;

/// Over how many locks the addresses are spread: far more than threads that ask at once.
const STRIPE_COUNT: usize = 64;
/// What a stripe may keep allocated when it has shrunk, in addresses.
const KEPT_COUNT: usize = 16;
/// How long an address is remembered at most that has no connection any more: by then its bucket
/// is full again.
const MEMORY: Duration = Duration::from_secs(1);
/// The price of an upgrade, so that buckets are reckoned in whole numbers: a bucket fills by
/// `max_upgrades_per_second_per_ip` in each nanosecond.
const PRICE: u64 = 1_000_000_000;

/// The connections and upgrades of all client addresses.
///
/// * Happened: [`enter`](Self::enter), then for each that was let in [`leave`](Self::leave), once
///   and with the same address; [`upgrade`](Self::upgrade) in between.
#[derive(Debug)]
pub(crate) struct ClientLimits {
    connection_limit: Option<usize>,
    max_upgrades_per_second_per_ip: Option<u32>,
    hasher: RandomState,
    stripes: Box<[Mutex<Stripe>]>,
}

/// Whom an address stands for: an IPv4 address, or a network of IPv6 with a prefix of 64 bits,
/// which is what one customer has at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Source(u128);

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            // As mapped (RFC 4291 section 2.5.5.2): never one of the networks below.
            IpAddr::V4(address) => Self(address.to_ipv6_mapped().to_bits()),
            IpAddr::V6(address) => Self(address.to_bits() >> 64 << 64),
        }
    }
}

#[derive(Debug, Default)]
struct Stripe {
    clients: HashMap<Source, Client>,
    /// The clients that left while their bucket was not full, and when; the oldest first. Each is
    /// here at most once.
    left: VecDeque<(Source, Instant)>,
}

#[derive(Debug)]
struct Client {
    connection_count: usize,
    /// What its bucket lacked then. Full, it holds the upgrades of one second.
    lack: u64,
    lacked_at: Instant,
    /// It stands in `left`.
    has_left: bool,
}

impl Client {
    fn new(now: Instant) -> Self {
        Self { connection_count: 0, lack: 0, lacked_at: now, has_left: false }
    }

    /// Fills the bucket up to now.
    fn refill(&mut self, per_second: u32, now: Instant) {
        // Shards read the clock each for itself: time may seem to stand still, never to go back.
        let passed = now.saturating_duration_since(self.lacked_at);
        let nanos = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
        self.lack = self.lack.saturating_sub(nanos.saturating_mul(u64::from(per_second)));
        self.lacked_at = self.lacked_at.max(now);
    }

    /// Takes an upgrade out of the bucket, if there is one in it.
    fn take_upgrade(&mut self, per_second: u32, now: Instant) -> bool {
        self.refill(per_second, now);
        let is_there = self.lack <= PRICE * (u64::from(per_second) - 1);
        self.lack += if is_there { PRICE } else { 0 };
        is_there
    }

    fn is_forgettable(&self) -> bool {
        self.connection_count == 0 && self.lack == 0
    }
}

impl ClientLimits {
    /// `None` if these limits ask for none.
    pub(crate) fn new(limits: &Limits) -> Option<Self> {
        let Limits { max_connections_per_ip, max_upgrades_per_second_per_ip, .. } = *limits;
        if max_connections_per_ip.is_none() && max_upgrades_per_second_per_ip.is_none() {
            return None;
        }
        Some(Self {
            connection_limit: max_connections_per_ip,
            max_upgrades_per_second_per_ip,
            hasher: RandomState::new(),
            stripes: (0..STRIPE_COUNT).map(|_| Mutex::default()).collect(),
        })
    }

    /// Counts a connection from this address; `false` if that has as many as it may.
    #[must_use]
    pub(in crate::shard) fn enter(&self, address: IpAddr, now: Instant) -> bool {
        let Some(limit) = self.connection_limit else { return true };
        self.update(address, now, |client| {
            let is_let_in = client.connection_count < limit;
            client.connection_count += usize::from(is_let_in);
            is_let_in
        })
    }

    /// A connection that was counted has ended.
    pub(in crate::shard) fn leave(&self, address: IpAddr, now: Instant) {
        if self.connection_limit.is_some() {
            self.update(address, now, |client| {
                debug_assert!(client.connection_count > 0, "who leaves was counted");
                client.connection_count = client.connection_count.saturating_sub(1);
            });
        }
    }

    /// Counts an upgrade from this address; `false` if there were too many in the last second.
    #[must_use]
    pub(in crate::shard) fn upgrade(&self, address: IpAddr, now: Instant) -> bool {
        let Some(per_second) = self.max_upgrades_per_second_per_ip else { return true };
        self.update(address, now, |client| client.take_upgrade(per_second, now))
    }

    /// Looks up an address and changes something; then forgets what is not worth remembering.
    fn update<T>(&self, address: IpAddr, now: Instant, change: impl FnOnce(&mut Client) -> T) -> T {
        let source = Source::of(address);
        #[allow(clippy::cast_possible_truncation, reason = "any of its bits will do")]
        let at = self.hasher.hash_one(source) as usize % STRIPE_COUNT;
        let mut stripe = self.stripes[at].lock().unwrap_or_else(PoisonError::into_inner);
        let per_second = self.max_upgrades_per_second_per_ip.unwrap_or_default();
        let result = stripe.update(source, per_second, now, change);
        stripe.forget(per_second, now);
        result
    }
}

#[cfg(feature = "testing")]
impl ClientLimits {
    /// Whether so many connections are counted, if any are.
    pub(in crate::shard) fn counts(&self, connection_count: usize) -> bool {
        let count = |stripe: &Mutex<Stripe>| -> usize {
            let stripe = stripe.lock().unwrap_or_else(PoisonError::into_inner);
            stripe.clients.values().map(|client| client.connection_count).sum()
        };
        self.connection_limit.is_none()
            || self.stripes.iter().map(count).sum::<usize>() == connection_count
    }
}

impl Stripe {
    fn update<T>(
        &mut self,
        source: Source,
        per_second: u32,
        now: Instant,
        change: impl FnOnce(&mut Client) -> T,
    ) -> T {
        let mut entry = match self.clients.entry(source) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(place) => place.insert_entry(Client::new(now)),
        };
        let client = entry.get_mut();
        client.refill(per_second, now);
        let result = change(client);
        if client.is_forgettable() && !client.has_left {
            entry.remove();
        } else if client.connection_count == 0 && !client.has_left {
            client.has_left = true;
            self.left.push_back((source, now));
        }
        result
    }

    /// Forgets addresses that left long enough ago. Each costs one look, for one change that it
    /// made.
    fn forget(&mut self, per_second: u32, now: Instant) {
        while let Some(&(source, left_at)) = self.left.front()
            && now.saturating_duration_since(left_at) >= MEMORY
        {
            self.left.pop_front();
            let Entry::Occupied(mut entry) = self.clients.entry(source) else { continue };
            let client = entry.get_mut();
            client.refill(per_second, now);
            client.has_left = false;
            if client.is_forgettable() {
                entry.remove();
            } else if client.connection_count == 0 {
                client.has_left = true;
                self.left.push_back((source, now));
            }
        }
        // What was needed for a crowd is given back; rarely enough to cost nothing.
        let room = 4 * self.clients.len().max(KEPT_COUNT);
        if self.clients.capacity() > room {
            self.clients.shrink_to(room / 2);
        }
        if self.left.capacity() > 4 * self.left.len().max(KEPT_COUNT) {
            self.left.shrink_to(2 * self.left.len().max(KEPT_COUNT));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn limited(connections: Option<usize>, upgrades: Option<u32>) -> ClientLimits {
        let limits = Limits {
            max_connections_per_ip: connections,
            max_upgrades_per_second_per_ip: upgrades,
            ..Limits::default()
        };
        ClientLimits::new(&limits).expect("a limit is set")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// How many addresses are remembered.
    fn remembered_count(clients: &ClientLimits) -> usize {
        let count = |stripe: &Mutex<Stripe>| {
            let stripe = stripe.lock().expect("no panic");
            assert!(stripe.left.len() <= stripe.clients.len());
            stripe.clients.len()
        };
        clients.stripes.iter().map(count).sum()
    }

    #[test]
    fn nothing_is_counted_that_is_not_limited() {
        assert!(ClientLimits::new(&Limits::default()).is_none());
    }

    #[test]
    fn an_address_of_ipv4_and_a_network_of_ipv6_count_as_one() {
        for (one, same, other) in [
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
            ("2001:db8:0:1::", "2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:2::"),
            ("::1", "::", "0.0.0.0"),
            ("::", "::192.0.2.1", "192.0.2.1"),
        ] {
            let (clients, now) = (limited(Some(1), None), clock::now());
            assert!(clients.enter(ip(one), now));
            assert!(!clients.enter(ip(same), now), "{one} and {same}");
            assert!(clients.enter(ip(other), now), "{one} and {other}");
            clients.leave(ip(same), now);
            assert!(clients.enter(ip(one), now));
        }
    }

    /// What is promised, reckoned anew from all that has happened.
    #[derive(Default)]
    struct Model {
        connection_count: usize,
        granted: Vec<Duration>,
    }

    impl Model {
        /// A bucket that holds `rate` upgrades, as a real number of them times 10^9.
        fn grants(&self, rate: u32, now: Duration) -> bool {
            let full = i128::from(rate) * i128::from(PRICE);
            let (mut held, mut then) = (full, Duration::ZERO);
            for &at in self.granted.iter().chain([&now]) {
                let nanos = i128::try_from((at - then).as_nanos()).expect("a short test");
                held = full.min(held + nanos * i128::from(rate)) - i128::from(PRICE);
                then = at;
            }
            held >= 0
        }
    }

    #[test]
    fn it_decides_as_a_naive_model_does() {
        let start = clock::now();
        for (rate, limit, step_nanos) in
            [(1, 1, 100_000_000), (3, 2, 33_333_333), (7, 5, 14_000_001), (20, 3, 4_999_999)]
        {
            let clients = limited(Some(limit), Some(rate));
            let mut models: Vec<Model> = (0..5).map(|_| Model::default()).collect();
            let (mut seed, mut now) = (u64::from(rate), Duration::ZERO);
            let mut outcomes = [[0; 2]; 2];
            for _ in 0..4000 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let dice = seed >> 33;
                now += Duration::from_nanos(dice % step_nanos);
                let at = usize::try_from(dice / 7 % 5).expect("small");
                let (model, address) = (&mut models[at], IpAddr::from([10, 0, 0, dice_byte(at)]));
                match dice / 64 % 4 {
                    0 => {
                        let is_let_in = clients.enter(address, start + now);
                        assert_eq!(is_let_in, model.connection_count < limit);
                        model.connection_count += usize::from(is_let_in);
                        outcomes[0][usize::from(is_let_in)] += 1;
                    }
                    1 if model.connection_count > 0 => {
                        clients.leave(address, start + now);
                        model.connection_count -= 1;
                    }
                    _ => {
                        let is_granted = clients.upgrade(address, start + now);
                        assert_eq!(is_granted, model.grants(rate, now), "{rate} at {now:?}");
                        model.granted.extend(is_granted.then_some(now));
                        outcomes[1][usize::from(is_granted)] += 1;
                    }
                }
            }
            assert!(outcomes.iter().flatten().all(|&count| count > 50), "{outcomes:?}");
        }
    }

    fn dice_byte(at: usize) -> u8 {
        u8::try_from(at).expect("small")
    }

    #[test]
    fn the_fastest_rate_does_not_overflow() {
        let (clients, now) = (limited(None, Some(u32::MAX)), clock::now());
        for _ in 0..1000 {
            assert!(clients.upgrade(ip("::1"), now));
        }
        assert!(clients.upgrade(ip("::1"), now + crate::config::AGES));
    }

    #[test]
    fn who_has_gone_is_remembered_for_a_second_at_most() {
        let clients = limited(Some(2), Some(10));
        let start = clock::now();
        let network =
            |number: u32| IpAddr::from([0x2001, 0xdb8, high(number), low(number), 0, 0, 0, 1]);
        let mut most = 0;
        for number in 0..100_000 {
            // A new network each millisecond.
            let now = start + Duration::from_millis(number.into());
            let address = network(number);
            assert!(clients.enter(address, now) && clients.upgrade(address, now));
            clients.leave(address, now);
            if number % 1000 == 0 {
                most = most.max(remembered_count(&clients));
            }
        }
        // A second's worth, and what stands in stripes that nobody has looked at since.
        assert!((1000..2000).contains(&most), "{most} networks are remembered");
        let later = start + Duration::from_secs(1000);
        for number in 0..1000 {
            let (address, _) = (network(number), clients.enter(network(number), later));
            clients.leave(address, later);
        }
        assert_eq!(remembered_count(&clients), 0);
        let capacity = |stripe: &Mutex<Stripe>| {
            let stripe = stripe.lock().expect("no panic");
            stripe.clients.capacity() + stripe.left.capacity()
        };
        let capacity: usize = clients.stripes.iter().map(capacity).sum();
        assert!(capacity <= STRIPE_COUNT * KEPT_COUNT * 8, "room for {capacity} is kept");
    }

    fn high(number: u32) -> u16 {
        u16::try_from(number >> 16).expect("16 bits")
    }

    fn low(number: u32) -> u16 {
        u16::try_from(number & 0xFFFF).expect("16 bits")
    }

    #[test]
    fn who_stays_is_not_forgotten_and_who_comes_often_is_remembered_once() {
        let clients = limited(Some(1), Some(2));
        let start = clock::now();
        let [stays, comes] = ["192.0.2.1", "192.0.2.2"].map(ip);
        assert!(clients.enter(stays, start) && clients.upgrade(stays, start));
        for step in 0..10_000 {
            let now = start + Duration::from_millis(step);
            assert!(!clients.enter(stays, now));
            assert!(clients.enter(comes, now));
            let _ = clients.upgrade(comes, now);
            clients.leave(comes, now);
            assert!(remembered_count(&clients) <= 2);
        }
        clients.leave(stays, start + Duration::from_secs(20));
        assert!(clients.enter(stays, start + Duration::from_secs(20)));
    }

    #[test]
    fn it_is_exact_for_many_threads() {
        let (clients, now) = (limited(Some(100), Some(50)), clock::now());
        let granted = |_| {
            let all = |ask: fn(&ClientLimits, IpAddr, Instant) -> bool| {
                (0..100).filter(|_| ask(&clients, ip("::1"), now)).count()
            };
            [all(ClientLimits::enter), all(ClientLimits::upgrade)]
        };
        let sums = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|at| scope.spawn(move || granted(at))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .fold([0, 0], |[connections, upgrades], [more, others]| {
                    [connections + more, upgrades + others]
                })
        });
        assert_eq!(sums, [100, 50]);
    }
}
