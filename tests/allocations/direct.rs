//! From one connection to another, and from a thread beside the server to one.

use peregrine::ConnectionId;

use super::client::{Batch, Buffer, Client, Kind};
use super::common::within;
use super::server::{NEWS, Server};
use super::{Allowed, LIMIT, check};

const PAIR_COUNT: usize = 20;

/// Connections in pairs whose ends are on these shards.
fn pairs(server: &Server, shards: [usize; 2]) -> Vec<[Client; 2]> {
    let mut sides: [Vec<(Client, ConnectionId)>; 2] = Default::default();
    while sides.iter().any(|side| side.len() < PAIR_COUNT) {
        let (client, id) = server.relay();
        let wants = |side: &usize| shards[*side] == id.shard() && sides[*side].len() < PAIR_COUNT;
        if let Some(side) = (0..2).find(wants) {
            sides[side].push((client, id));
        }
    }
    let mut buffer = Buffer::default();
    let mut name = |client: &mut Client, target: ConnectionId| {
        let naming = Batch::request(&target.to_string(), b"\x81\x02ok");
        client.send_all(&naming);
        client.receive(&naming, &mut buffer);
    };
    let [left, right] = sides;
    let pair = |((mut left, left_id), (mut right, right_id))| {
        name(&mut left, right_id);
        name(&mut right, left_id);
        [left, right]
    };
    left.into_iter().zip(right).map(pair).collect()
}

/// All send to one another, with so many messages in flight each way.
fn check_pairs(shard_count: usize, shards: [usize; 2], in_flight: usize) {
    let server = Server::start(shard_count);
    let mut pairs = pairs(&server, shards);
    let mut buffer = Buffer::default();
    let batches = [0, 1].map(|salt| Batch::new(Kind::Binary, 64, in_flight, salt));
    check(&server, Allowed::Nothing, 2 * PAIR_COUNT * in_flight, || {
        for [left, right] in &mut pairs {
            left.send_all(&batches[0]);
            right.send_all(&batches[1]);
        }
        for [left, right] in &mut pairs {
            left.receive(&batches[1], &mut buffer);
            right.receive(&batches[0], &mut buffer);
        }
    });
}

#[test]
fn a_message_to_another_connection_of_the_shard_allocates_nothing() {
    within(LIMIT, || [1, 32].into_iter().for_each(|count| check_pairs(1, [0, 0], count)));
}

#[test]
fn a_message_to_another_shard_allocates_nothing() {
    within(LIMIT, || [1, 32].into_iter().for_each(|count| check_pairs(2, [0, 1], count)));
}

/// The frame is encoded on that thread, into an allocation of its own.
#[test]
fn a_message_from_another_thread_allocates_its_frame() {
    within(LIMIT, || {
        let server = Server::start(1);
        let mut client = server.connect("/told");
        let mut buffer = Buffer::default();
        let returned = [&[0x82, 64], &NEWS[..]].concat();
        let batch = Batch::request("me", &returned);
        check(&server, Allowed::Each(1), 1, || {
            client.send_all(&batch);
            client.receive(&batch, &mut buffer);
        });
    });
}
