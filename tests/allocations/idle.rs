//! Those who say nothing.

use std::thread;
use std::time::Duration;

use tungstenite::Message;

use super::common::{self, within};
use super::server::Server;
use super::{Allowed, LIMIT, check};

const CONNECTION_COUNT: usize = 100;

#[test]
fn connections_that_are_held_allocate_nothing() {
    within(LIMIT, || {
        let server = Server::start(1);
        let held: Vec<_> = (0..CONNECTION_COUNT).map(|_| server.connect("/echo")).collect();
        check(&server, Allowed::Nothing, 1, || thread::sleep(Duration::from_millis(20)));
        drop(held);
    });
}

/// Once in 25 seconds, unless it says something: the ping waits in a queue, and the answer is one
/// of the frames that tungstenite takes care of.
#[test]
fn asking_a_silent_connection_allocates_little() {
    within(LIMIT, || {
        let server = Server::start(1);
        let mut client = common::Client::connect(server.address, "/silent");
        check(&server, Allowed::Each(8), 1, || {
            let ping = client.0.read().expect("a ping, the one before it is answered");
            assert!(matches!(ping, Message::Ping(_)), "{ping:?}");
        });
    });
}
