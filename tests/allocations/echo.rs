//! A connection's own messages.

use super::client::{Batch, Buffer, Client, Kind};
use super::common::within;
use super::server::{SENDS, Server};
use super::{Allowed, LIMIT, ROUND_COUNT, check, settle};

const CONNECTION_COUNT: usize = 100;

/// Connections that each send a batch and receive it back, so often.
fn check_echo(path: &str, times: usize, (kind, bytes, in_flight): (Kind, usize, usize)) {
    let server = Server::start(1);
    let talker = |salt| (server.connect(path), Batch::new(kind, bytes, in_flight, salt));
    let mut talkers: Vec<(Client, Batch)> = (0..CONNECTION_COUNT).map(talker).collect();
    let mut buffer = Buffer::default();
    let messages = CONNECTION_COUNT * times * in_flight;
    check(&server, Allowed::Nothing, messages, || {
        talkers.iter_mut().for_each(|(client, batch)| client.send(batch));
        for (client, batch) in &mut talkers {
            client.exchange(batch, &mut buffer);
            (1..times).for_each(|_| client.receive(batch, &mut buffer));
        }
    });
}

#[test]
fn an_echo_allocates_nothing() {
    within(LIMIT, || {
        for kind in [Kind::Text, Kind::Binary] {
            for in_flight in [1, 32] {
                check_echo("/echo", 1, (kind, 64, in_flight));
            }
        }
    });
}

#[test]
fn an_echo_of_16_kib_allocates_nothing() {
    within(LIMIT, || {
        for kind in [Kind::Text, Kind::Binary] {
            check_echo("/echo", 1, (kind, 16 << 10, 1));
        }
    });
}

#[test]
fn a_send_to_oneself_allocates_nothing() {
    within(LIMIT, || {
        for in_flight in [1, 32] {
            check_echo("/send", 1, (Kind::Binary, 64, in_flight));
        }
        check_echo("/sends", SENDS, (Kind::Binary, 64, 1));
    });
}

/// It is more than the receive buffer holds, so it is put together, in memory that is given back
/// when it has been answered. The bounds leave room for answers that the kernel takes in parts.
#[test]
fn an_echo_of_1_mib_allocates_its_size_and_little_more() {
    within(LIMIT, || {
        let server = Server::start(1);
        let batch = Batch::new(Kind::Binary, 1 << 20, 1, 0);
        let (mut client, mut buffer) = (server.connect("/echo"), Buffer::default());
        let allocated = settle(&server, || {
            client.send(&batch);
            client.exchange(&batch, &mut buffer);
        });
        let messages = ROUND_COUNT as u64;
        assert!(allocated.count <= 32 * messages, "{allocated:?} for {messages} messages");
        assert!(allocated.bytes <= (3 * messages) << 20, "{allocated:?} for {messages} messages");
    });
}
