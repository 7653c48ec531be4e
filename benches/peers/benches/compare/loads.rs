//! What is asked of each server. Knows the client, must not know who is measured.
//!
//! What is sent is made once a load and shared, so that all servers get the very same bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use super::common::client::{Batch, Buffer, Client, Kind};

/// Broadcasts in flight at once, and the size of each.
const BROADCAST_COUNT: usize = 16;
const BROADCAST_BYTES: usize = 64;

/// Messages from this size on are large: fewer connections send them, or the client's memory would
/// be what is measured.
const LARGE_BYTES: usize = 256 << 10;

/// What all servers are asked to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// Each connection sends so many messages at once and receives them back, again and again.
    Echo { kind: Kind, payload_bytes: usize, in_flight_count: usize },
    /// One member speaks, all receive it, that one included.
    Broadcast { member_count: usize },
}

impl Load {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Echo { kind, payload_bytes, in_flight_count } => {
                let kind = format!("{kind:?}").to_lowercase();
                let size = match payload_bytes {
                    0..1024 => format!("{payload_bytes} B"),
                    1024..1_048_576 => format!("{} KiB", payload_bytes >> 10),
                    _ => format!("{} MiB", payload_bytes >> 20),
                };
                format!("echo/{size}/{kind}/{in_flight_count}")
            }
            Self::Broadcast { member_count } => format!("broadcast/{member_count}"),
        }
    }

    pub(crate) fn path(&self) -> &'static str {
        match self {
            Self::Echo { .. } => "/echo",
            Self::Broadcast { .. } => "/all",
        }
    }

    pub(crate) fn connection_count(&self) -> usize {
        match *self {
            // Enough that the server always has work while the client reads.
            Self::Echo { payload_bytes, .. } if payload_bytes < LARGE_BYTES => 16,
            Self::Echo { .. } => 2,
            Self::Broadcast { member_count } => member_count,
        }
    }

    /// How many messages a connection sends at once.
    fn batch_length(&self) -> usize {
        match *self {
            Self::Echo { in_flight_count, .. } => in_flight_count,
            Self::Broadcast { .. } => BROADCAST_COUNT,
        }
    }

    /// How many messages the client receives in one iteration.
    pub(crate) fn message_count(&self) -> usize {
        self.connection_count() * self.batch_length()
    }

    /// The batches of each connection that speaks; they take turns.
    pub(crate) fn script(&self) -> Arc<Script> {
        let (kind, payload_bytes, speaker_count) = match *self {
            Self::Echo { kind, payload_bytes, .. } => {
                (kind, payload_bytes, self.connection_count())
            }
            Self::Broadcast { .. } => (Kind::Text, BROADCAST_BYTES, 1),
        };
        let batch_count = if payload_bytes < LARGE_BYTES { 4 } else { 2 };
        let batch = |salt| Batch::new(kind, payload_bytes, self.batch_length(), salt);
        let batches = |speaker| {
            let first = speaker * batch_count;
            (first..first + batch_count).map(&batch).collect()
        };
        Arc::new((0..speaker_count).map(batches).collect())
    }

    /// Connects to a server; what is returned runs so many iterations.
    pub(crate) fn connect(&self, address: SocketAddr, script: Arc<Script>) -> Iterations {
        let connect = |_| Client::connect(address, self.path());
        let clients: Vec<_> = (0..self.connection_count()).map(connect).collect();
        match self {
            Self::Echo { .. } => echo(clients, script),
            Self::Broadcast { .. } => broadcast(clients, script),
        }
    }
}

/// What each connection that speaks says in turn.
pub(crate) type Script = Vec<Vec<Batch>>;

/// Runs so many iterations and panics if an answer is wrong.
pub(crate) type Iterations = Box<dyn FnMut(usize)>;

fn echo(mut clients: Vec<Client>, script: Arc<Script>) -> Iterations {
    // One processor is the server's.
    let processor_count = thread::available_parallelism().map_or(1, usize::from);
    let thread_count = processor_count.saturating_sub(1).clamp(1, 4);
    let part_length = clients.len().div_ceil(thread_count);
    Box::new(move |count| {
        thread::scope(|scope| {
            let parts = clients.chunks_mut(part_length).zip(script.chunks(part_length));
            for (clients, script) in parts {
                scope.spawn(move || talk(clients, script, count));
            }
        });
    })
}

/// While the client is busy with one connection, the server has the others.
fn talk(clients: &mut [Client], script: &[Vec<Batch>], count: usize) {
    let mut buffer = Buffer::default();
    for (client, batches) in clients.iter_mut().zip(script) {
        client.send(&batches[0]);
    }
    for round in 0..count {
        for (client, batches) in clients.iter_mut().zip(script) {
            client.exchange(&batches[round % batches.len()], &mut buffer);
            if round + 1 < count {
                client.send(&batches[(round + 1) % batches.len()]);
            }
        }
    }
}

/// While all receive what was said, the next is said.
fn broadcast(mut members: Vec<Client>, script: Arc<Script>) -> Iterations {
    let mut buffer = Buffer::default();
    Box::new(move |count| {
        let batches = &script[0];
        members[0].send_all(&batches[0]);
        for round in 0..count {
            if round + 1 < count {
                members[0].send_all(&batches[(round + 1) % batches.len()]);
            }
            for member in &mut members {
                member.receive(&batches[round % batches.len()], &mut buffer);
            }
        }
    })
}
