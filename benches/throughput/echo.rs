//! What comes back to the one who said it; and those who only come and go.

use std::net::SocketAddr;
use std::thread;

use super::client::{Batch, Buffer, Client, Kind};
use super::measure::{Rounds, timed};

/// The most connections that echo at once: enough that the server always has work while the client
/// reads.
const CONNECTION_COUNT: usize = 16;
/// The most that all of them send in a round, in bytes.
const ROUND_BYTES: usize = 64 << 20;
/// How many batches of different content take turns.
const BATCH_COUNT: usize = 2;
/// Connections that come and go at once.
pub(crate) const VISITOR_COUNT: usize = 16;

/// What an echo measurement sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) kind: Kind,
    pub(crate) payload_bytes: usize,
    pub(crate) in_flight_count: usize,
}

impl Load {
    fn connection_count(self) -> usize {
        let each = self.payload_bytes * self.in_flight_count;
        (ROUND_BYTES / each).clamp(1, CONNECTION_COUNT)
    }

    /// How many messages a round has.
    pub(crate) fn message_count(self) -> usize {
        self.connection_count() * self.in_flight_count
    }
}

/// A connection and what it sends in turn.
type Talker = (Client, Vec<Batch>);

/// Each connection sends its batch and receives it back, again and again.
pub(crate) fn echo(address: SocketAddr, load: Load) -> Rounds {
    let Load { kind, payload_bytes, in_flight_count } = load;
    let batch = |salt| Batch::new(kind, payload_bytes, in_flight_count, salt);
    let talker = |index: usize| -> Talker {
        let salts = index * BATCH_COUNT..(index + 1) * BATCH_COUNT;
        (Client::connect(address, "/echo"), salts.map(batch).collect())
    };
    let mut talkers: Vec<Talker> = (0..load.connection_count()).map(talker).collect();
    // One processor is the server's.
    let processor_count = thread::available_parallelism().map_or(1, usize::from);
    let thread_count = processor_count.saturating_sub(1).clamp(1, 4);
    let part_count = talkers.len().div_ceil(thread_count);
    timed(move |count| {
        thread::scope(|scope| {
            for part in talkers.chunks_mut(part_count) {
                scope.spawn(move || talk(part, count));
            }
        });
    })
}

/// While the client is busy with one connection, the server has the others.
fn talk(talkers: &mut [Talker], count: usize) {
    let mut buffer = Buffer::default();
    for (client, batches) in talkers.iter_mut() {
        client.send(&batches[0]);
    }
    for round in 0..count {
        for (client, batches) in talkers.iter_mut() {
            client.exchange(&batches[round % BATCH_COUNT], &mut buffer);
            if round + 1 < count {
                client.send(&batches[(round + 1) % BATCH_COUNT]);
            }
        }
    }
}

/// Connections that come and go: each connects, upgrades, closes.
pub(crate) fn connect_and_close(address: SocketAddr) -> Rounds {
    timed(move |count| {
        for _ in 0..count {
            let open = |_| Client::open(address, "/echo");
            let mut clients: Vec<_> = (0..VISITOR_COUNT).map(open).collect();
            clients.iter_mut().for_each(Client::await_upgrade);
            clients.iter_mut().for_each(Client::begin_close);
            clients.into_iter().for_each(Client::await_end);
        }
    })
}
