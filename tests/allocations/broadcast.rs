//! From one to many.

use super::client::{Batch, Buffer, Client, Kind};
use super::common::within;
use super::server::{NEWS, Server};
use super::{Allowed, LIMIT, check};

const MEMBER_COUNT: usize = 100;

/// One of many says something to all, so many times at once; what is allowed is for each of them.
fn check_broadcast(shards: usize, path: &str, in_flight: usize, allowed: Allowed) {
    let server = Server::start(shards);
    let mut members: Vec<Client> = (0..MEMBER_COUNT).map(|_| server.connect(path)).collect();
    let mut buffer = Buffer::default();
    let batch = Batch::new(Kind::Binary, 64, in_flight, 0);
    check(&server, allowed, in_flight, || {
        members[0].send_all(&batch);
        members.iter_mut().for_each(|member| member.receive(&batch, &mut buffer));
    });
}

#[test]
fn a_broadcast_on_one_shard_allocates_nothing() {
    within(LIMIT, || {
        for in_flight in [1, 16] {
            check_broadcast(1, "/all", in_flight, Allowed::Nothing);
        }
    });
}

/// One allocation: what tells the other shards of it. What is encoded is in blocks that are used
/// again.
#[test]
fn a_broadcast_to_other_shards_allocates_what_they_share() {
    within(LIMIT, || {
        for in_flight in [1, 16] {
            check_broadcast(2, "/all", in_flight, Allowed::Each(1));
        }
    });
}

#[test]
fn a_publication_to_a_topic_allocates_no_more_than_a_broadcast() {
    within(LIMIT, || {
        for in_flight in [1, 16] {
            check_broadcast(1, "/topic", in_flight, Allowed::Nothing);
            check_broadcast(2, "/topic", in_flight, Allowed::Each(1));
        }
    });
}

/// Three: the frame, what tells the shards of it, and the list of the room reserved in all of them.
#[test]
fn a_broadcast_from_another_thread_allocates_what_the_shards_share() {
    within(LIMIT, || {
        for shards in [1, 2] {
            let server = Server::start(shards);
            let connect = |_| server.connect("/told");
            let mut members: Vec<Client> = (0..MEMBER_COUNT).map(connect).collect();
            let mut buffer = Buffer::default();
            let batch = Batch::request("all", &[&[0x82, 64], &NEWS[..]].concat());
            check(&server, Allowed::Each(3), 1, || {
                members[0].send_all(&batch);
                members.iter_mut().for_each(|member| member.receive(&batch, &mut buffer));
            });
        }
    });
}
