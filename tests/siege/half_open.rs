//! Peers whose link is cut: they acknowledge nothing any more, and nobody says so.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use peregrine::{
    Callbacks, Close, ClosedBy, ConnectionId, Endpoint, Limits, RunningServer, SendError, Server,
};

use super::link::{Link, SERVER};
use super::{LIMIT, resident_bytes};
use crate::alone::alone;
use crate::common::{Client, PATIENCE};
use crate::raw::{Bystander, Raw, timed, until};

const PING_AFTER: Duration = Duration::from_millis(500);
const DEAD_AFTER: Duration = Duration::from_secs(3);
const CLOSING: Duration = Duration::from_millis(400);
/// The most that the server may be late.
const MARGIN: Duration = Duration::from_secs(3);
const MESSAGE_BYTES: usize = 48 << 20;

fn shorten(limits: &mut Limits) {
    limits.ping_after = PING_AFTER;
    limits.idle_timeout = DEAD_AFTER;
    limits.close_timeout = CLOSING;
}

type Ends = Receiver<(ConnectionId, Close)>;

/// An echo that tells everyone its id, closes whom it is told to, and tells of ends.
fn serve(link: &Link) -> (RunningServer, Ends) {
    let (told, ends) = channel();
    let told = Mutex::new(told);
    let handler = Callbacks::<()>::new()
        .on_connect(|ws| ws.id().to_string().into())
        .on_message(|ws, message| {
            if message.as_text() == Some("close me") {
                ws.close();
            }
            message.into()
        })
        .on_close(move |ws, close| {
            // The test may be over.
            let _ = told.lock().expect("no panic").send((ws.id(), close.clone()));
            ().into()
        });
    let echo = Callbacks::<()>::new().on_message(|_, message| message.into());
    let running = link.at_server(|| {
        let mut limits = Limits::default();
        limits.handshake_timeout = DEAD_AFTER;
        limits.close_timeout = CLOSING;
        let handler = Endpoint::new(handler).adjust_limits(shorten);
        let builder = Server::builder().shards(1).limits(limits).websocket("/", handler);
        let builder = builder.websocket("/echo", echo);
        builder.bind((SERVER, 0)).expect("a free port").start().expect("threads")
    });
    (running, ends)
}

/// A client that reads all the time, and so answers pings; its id.
fn lively(link: &Link, server: &RunningServer) -> ConnectionId {
    let address = server.local_addr();
    let mut client = link.at_client(|| Client::connect(address, "/"));
    let id = client.text().parse().expect("an id");
    thread::spawn(move || while client.0.read().is_ok() {});
    id
}

fn next(ends: &Ends) -> (ConnectionId, Close) {
    ends.recv_timeout(PATIENCE).expect("on_close is called")
}

fn count(server: &RunningServer) -> usize {
    server.hub().connection_counts()[0]
}

#[test]
fn a_peer_whose_link_is_cut_is_found_blamed_and_freed_whatever_it_was_doing() {
    let name = "half_open::\
                a_peer_whose_link_is_cut_is_found_blamed_and_freed_whatever_it_was_doing";
    alone(name, LIMIT, || {
        let Some(link) = Link::lay() else { return };
        let link = Arc::new(link);
        let (server, ends) = serve(&link);
        let (address, hub) = (server.local_addr(), server.hub());
        let mut bystander = link.at_server(|| Bystander::connect(address, "/echo"));
        let idle = lively(&link, &server);
        let owed = lively(&link, &server);
        let mut leaving = link.at_client(|| Raw::upgraded(address, "/"));
        let leaving_id: ConnectionId = leaving.text().parse().expect("an id");
        // While the link holds, nobody is taken for dead who answers.
        let until_dead = DEAD_AFTER + PING_AFTER;
        for _ in 0..10 {
            thread::park_timeout(until_dead / 10);
            bystander.is_served();
            leaving.send(crate::raw::frame(crate::raw::PONG, b""));
        }
        assert!(ends.try_recv().is_err(), "nobody has left");

        let mut asking = link.at_client(|| Raw::connect(address));
        asking.send("GET / HTTP/1.1\r\n");
        until("it was accepted", || count(&server) == 5);
        leaving.send(crate::raw::frame(crate::raw::TEXT, b"close me"));
        assert_eq!(leaving.text(), "close me");
        assert_eq!(next(&ends).0, leaving_id);
        let before = resident_bytes("self");
        link.cut();
        let delivery = hub.send_to_async(owed, vec![7; MESSAGE_BYTES]);
        bystander.is_served();
        let queued = resident_bytes("self").saturating_sub(before);
        assert!(queued > MESSAGE_BYTES / 2, "the test is too small: {queued} bytes are queued");

        let (told, took) = timed(|| [next(&ends), next(&ends)]);
        assert!(took <= DEAD_AFTER + MARGIN, "found only after {took:?}");
        for (id, close) in told {
            assert!(id == idle || id == owed);
            let who = (close.code(), close.reason(), close.by());
            assert_eq!(who, (1001.into(), "timed out", ClosedBy::Server));
            bystander.is_served();
        }
        assert_eq!(delivery.wait(), Err(SendError::Gone), "it is known what became of it");
        let ((), rest) = timed(|| until("they are freed", || count(&server) == 1));
        assert!(rest <= CLOSING + MARGIN, "freed only after {rest:?}");
        let kept = resident_bytes("self").saturating_sub(before);
        assert!(kept < MESSAGE_BYTES / 4, "{kept} bytes are kept of {queued}");
        println!("found after {took:?}, freed {rest:?} later; {queued} bytes queued, {kept} kept");

        // Who comes back finds nothing of it, and is welcome.
        link.mend();
        asking.try_send("Host: localhost\r\n\r\n");
        asking.all();
        let mut again = link.at_client(|| Client::connect(address, "/echo"));
        again.send("hello");
        assert_eq!(again.text(), "hello");
        bystander.is_served();
        assert!(ends.try_recv().is_err(), "on_close is called once");
    });
}
