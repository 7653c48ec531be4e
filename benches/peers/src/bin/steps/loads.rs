//! What clients do in a round, and how a round is counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::Result;
use crate::clients::{Awaited, Client};
use crate::inputs::{Kind, Seed, put_frame, put_unmasked};
use crate::served::Served;
use crate::trace::{Thread, Wanted};

/// What is on its way through the kernel arrives within this, and rests that long are given.
const REST: Duration = Duration::from_micros(200);
/// After so many rests in which nothing has moved, nothing is on its way.
const REST_COUNT: usize = 20;

/// A frame that closes with 1000, masked with zeros, and its answer.
const CLOSE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8];
const CLOSE_ANSWER: [u8; 4] = [0x88, 2, 0x03, 0xE8];

/// What is done again and again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// Each client sends its messages and receives them back.
    Echo { kind: Kind, payload_bytes: usize, clients: usize, in_flight: usize },
    /// Speakers among the members send one message each, and all members receive all.
    Broadcast { members: usize, speakers: usize },
    /// So many connect and ask for the upgrade; when all have it they close.
    Visit { visitors: usize },
}

impl Load {
    /// How many instructions a message, a delivery, a visit costs, in each round.
    pub(crate) fn count(self, warm_up_count: usize, round_count: usize) -> Result<Vec<f64>> {
        let served = Served::start()?;
        let mut clients = self.gather(served.address)?;
        for _ in 0..warm_up_count {
            self.round(served.address, &mut clients, &mut run)?;
        }
        let mut thread = Thread::attach(served.shard()?)?;
        let mut counts = Vec::new();
        // The first round also does what the warm-up has left to do.
        for _ in 0..=round_count {
            let mut count = 0;
            self.round(served.address, &mut clients, &mut |clients: &mut [Client]| {
                count += lead(&mut thread, clients)?;
                Ok(())
            })?;
            counts.push(count as f64 / self.item_count() as f64);
        }
        Ok(counts.split_off(1))
    }

    /// How many messages, deliveries, visits a round has.
    fn item_count(self) -> usize {
        match self {
            Self::Echo { clients, in_flight, .. } => clients * in_flight,
            Self::Broadcast { members, speakers } => members * speakers,
            Self::Visit { visitors } => visitors,
        }
    }

    /// Those who are there all the time.
    fn gather(self, address: SocketAddr) -> Result<Vec<Client>> {
        let (count, path) = match self {
            Self::Echo { clients, .. } => (clients, "/echo"),
            Self::Broadcast { members, .. } => (members, "/all"),
            Self::Visit { .. } => (0, "/echo"),
        };
        let mut clients = Vec::new();
        for _ in 0..count {
            let mut client = Client::open(address, path)?;
            run(std::slice::from_mut(&mut client))?;
            clients.push(client);
        }
        Ok(clients)
    }

    /// One round: `stage` lets the clients do what they have begun.
    fn round(
        self,
        address: SocketAddr,
        clients: &mut Vec<Client>,
        stage: &mut dyn FnMut(&mut [Client]) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Echo { kind, payload_bytes, in_flight, .. } => {
                let mut seed = Seed(3);
                for client in &mut *clients {
                    let (sent, returned) = messages(&mut seed, kind, payload_bytes, in_flight);
                    client.begin(sent, Awaited::Bytes(returned));
                }
                stage(clients)
            }
            Self::Broadcast { speakers, .. } => {
                // They all say the same, for nobody knows in which order the server hears them.
                let (said, heard) = messages(&mut Seed(4), Kind::Binary, 64, 1);
                let heard: Arc<[u8]> = heard.repeat(speakers).into();
                for (index, client) in clients.iter_mut().enumerate() {
                    let said = if index < speakers { Arc::clone(&said) } else { Arc::default() };
                    client.begin(said, Awaited::Bytes(Arc::clone(&heard)));
                }
                stage(clients)
            }
            Self::Visit { visitors } => {
                for _ in 0..visitors {
                    clients.push(Client::open(address, "/echo")?);
                }
                stage(clients)?;
                for client in &mut *clients {
                    client.begin(CLOSE.into(), Awaited::End(CLOSE_ANSWER.into()));
                }
                stage(clients)?;
                clients.clear();
                Ok(())
            }
        }
    }
}

/// Messages as a client sends them, and as they come back.
fn messages(seed: &mut Seed, kind: Kind, size: usize, count: usize) -> (Arc<[u8]>, Arc<[u8]>) {
    let (mut sent, mut returned) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let payload = kind.payload(seed, size);
        put_frame(&mut sent, seed, 0x80 | kind.opcode(), &payload);
        put_unmasked(&mut returned, 0x80 | kind.opcode(), &payload);
    }
    (sent.into(), returned.into())
}

/// Lets clients do what they have begun, with a server that runs.
fn run(clients: &mut [Client]) -> Result<()> {
    while advance(clients)? != Progress::Done {
        thread::yield_now();
    }
    Ok(())
}

/// The same, with a thread that is led; how many instructions that took.
fn lead(thread: &mut Thread, clients: &mut [Client]) -> Result<u64> {
    let mut count = 0;
    while settle(clients)? != Progress::Done {
        count += thread.lead(&mut || match advance(clients)? {
            Progress::Done => Ok(Wanted::NoMore),
            Progress::Some | Progress::None => Ok(Wanted::Still),
        })?;
    }
    Ok(count)
}

/// What clients could do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    None,
    Some,
    Done,
}

fn advance(clients: &mut [Client]) -> Result<Progress> {
    let (mut has_moved, mut is_done) = (false, true);
    for client in clients {
        has_moved |= client.advance()?;
        is_done &= client.is_done()?;
    }
    Ok(match (is_done, has_moved) {
        (true, _) => Progress::Done,
        (false, true) => Progress::Some,
        (false, false) => Progress::None,
    })
}

/// Advances until nothing is on its way any more, as long as the server stands.
fn settle(clients: &mut [Client]) -> Result<Progress> {
    let mut rest_count = 0;
    loop {
        match advance(clients)? {
            Progress::Done => return Ok(Progress::Done),
            Progress::Some => rest_count = 0,
            Progress::None if rest_count == REST_COUNT => return Ok(Progress::None),
            Progress::None => {
                thread::sleep(REST);
                rest_count += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_has_as_many_items_as_is_counted_by() {
        let echo =
            Load::Echo { kind: Kind::Binary, payload_bytes: 64, clients: 100, in_flight: 32 };
        assert_eq!(echo.item_count(), 3200);
        assert_eq!(Load::Broadcast { members: 1000, speakers: 16 }.item_count(), 16_000);
        assert_eq!(Load::Visit { visitors: 50 }.item_count(), 50);
    }

    #[test]
    fn messages_come_back_without_their_masks() {
        let (sent, returned) = messages(&mut Seed(1), Kind::Ascii, 64, 2);
        assert_eq!((sent.len(), returned.len()), (2 * 70, 2 * 66));
        assert_eq!(
            (sent[..2].to_vec(), returned[..2].to_vec()),
            (vec![0x81, 0xC0], vec![0x81, 64])
        );
    }
}
