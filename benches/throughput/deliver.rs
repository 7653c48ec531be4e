//! What one connection says to others: to all, or to one.

use std::net::SocketAddr;

use peregrine::ConnectionId;

use super::client::{Batch, Buffer, Client, Kind};
use super::measure::{Rounds, timed};

/// Pairs of connections that send to one another.
pub(crate) const PAIR_COUNT: usize = 8;
/// How many batches of different content take turns.
const BATCH_COUNT: usize = 4;
/// How many connect at once.
const CROWD: usize = 100;

/// So many members of the endpoint that broadcasts.
fn members(address: SocketAddr, count: usize) -> Vec<Client> {
    let mut members: Vec<Client> = Vec::with_capacity(count);
    while members.len() < count {
        let at = members.len();
        let crowd = CROWD.min(count - at);
        members.extend((0..crowd).map(|_| Client::open(address, "/all")));
        members[at..].iter_mut().for_each(Client::await_upgrade);
    }
    members
}

/// One member broadcasts, so many messages at once; all receive them, that one included. While they
/// do, the next are sent.
pub(crate) fn broadcast(address: SocketAddr, member_count: usize, in_flight: usize) -> Rounds {
    let batch = |salt| Batch::new(Kind::Text, 64, in_flight, salt);
    let batches: Vec<_> = (0..BATCH_COUNT).map(batch).collect();
    let mut members = members(address, member_count);
    let mut buffer = Buffer::default();
    timed(move |count| {
        members[0].send_all(&batches[0]);
        for round in 0..count {
            if round + 1 < count {
                members[0].send_all(&batches[(round + 1) % BATCH_COUNT]);
            }
            for member in &mut members {
                member.receive(&batches[round % BATCH_COUNT], &mut buffer);
            }
        }
    })
}

/// Where the two of a pair are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Placement {
    SameShard,
    OtherShard,
}

impl Placement {
    pub(crate) const ALL: [Self; 2] = [Self::SameShard, Self::OtherShard];

    /// The shards of the two sides.
    fn sides(self) -> [usize; 2] {
        match self {
            Self::SameShard => [0, 0],
            Self::OtherShard => [0, 1],
        }
    }

    pub(crate) fn shard_count(self) -> usize {
        match self {
            Self::SameShard => 1,
            Self::OtherShard => 2,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SameShard => "same shard",
            Self::OtherShard => "other shard",
        }
    }
}

/// Pairs of connections send to one another, each so many messages at once.
pub(crate) fn send_to(address: SocketAddr, placement: Placement, in_flight: usize) -> Rounds {
    let mut pairs = pairs(address, placement.sides());
    let mut buffer = Buffer::default();
    let batch = |salt| Batch::new(Kind::Binary, 64, in_flight, salt);
    let batches: Vec<_> = (0..2 * PAIR_COUNT).map(batch).collect();
    timed(move |count| {
        for ([left, right], batch) in pairs.iter_mut().zip(batches.chunks_exact(2)) {
            left.send_all(&batch[0]);
            right.send_all(&batch[1]);
        }
        for round in 0..count {
            for ([left, right], batch) in pairs.iter_mut().zip(batches.chunks_exact(2)) {
                left.receive(&batch[1], &mut buffer);
                right.receive(&batch[0], &mut buffer);
                if round + 1 < count {
                    left.send_all(&batch[0]);
                    right.send_all(&batch[1]);
                }
            }
        }
    })
}

/// Connects until both sides have enough connections on their shards, and pairs them.
fn pairs(address: SocketAddr, shards: [usize; 2]) -> Vec<[Client; 2]> {
    let mut sides: [Vec<(Client, ConnectionId)>; 2] = Default::default();
    for _ in 0..100 * PAIR_COUNT {
        let mut client = Client::connect(address, "/relay");
        client.send_all(&Batch::request("id", b""));
        let id: ConnectionId = client.read_short_text().parse().expect("an id");
        let wants = |&side: &usize| shards[side] == id.shard() && sides[side].len() < PAIR_COUNT;
        let Some(side) = (0..2).find(wants) else { continue };
        sides[side].push((client, id));
        if sides.iter().all(|side| side.len() == PAIR_COUNT) {
            break;
        }
    }
    assert!(sides.iter().all(|side| side.len() == PAIR_COUNT), "a shard gets no connections");
    let mut buffer = Buffer::default();
    let mut name = |client: &mut Client, target: ConnectionId| {
        let naming = Batch::request(&target.to_string(), b"\x81\x02ok");
        client.send_all(&naming);
        client.receive(&naming, &mut buffer);
    };
    let [left, right] = sides;
    left.into_iter()
        .zip(right)
        .map(|((mut left, left_id), (mut right, right_id))| {
            name(&mut left, right_id);
            name(&mut right, left_id);
            [left, right]
        })
        .collect()
}
