//! Pages that a client takes slowly: they arrive, and what the client asks next is answered.

use std::thread;
use std::time::Duration;

use peregrine::{Limits, Response, RunningServer};

use crate::common::{start, within};
use crate::raw::{Raw, get};

const PAGE_BYTES: usize = 4 << 20;
const HANDSHAKE: Duration = Duration::from_millis(300);

fn serve() -> RunningServer {
    let mut limits = Limits::default();
    limits.handshake_timeout = HANDSHAKE;
    start(1, |builder| {
        let page = Response::new(200).body(vec![b'p'; PAGE_BYTES]);
        builder.limits(limits).get("/page", page).get("/next", "next")
    })
}

#[test]
fn a_page_may_take_longer_than_a_request_and_the_connection_serves_the_next_one() {
    within(Duration::from_secs(60), || {
        for asks_at_once in [false, true] {
            let server = serve();
            let mut client = Raw::connect_narrow(server.local_addr());
            client.send(get("/page"));
            if asks_at_once {
                client.send(get("/next"));
            }
            assert_eq!(client.head().status, 200);
            for _ in 0..8 {
                thread::sleep(HANDSHAKE / 3);
                client.take(PAGE_BYTES / 16).expect("it goes on");
            }
            client.take(PAGE_BYTES / 2).expect("the whole page");
            if !asks_at_once {
                client.send(get("/next"));
            }
            let next = client.answer();
            assert_eq!((next.status, &*next.body), (200, &b"next"[..]), "{asks_at_once}");
        }
    });
}

/// The client takes most of the page, asks for the next one when the server has given the rest to
/// the kernel, and then takes that.
fn takes_the_whole_page(mut client: Raw) {
    client.take(PAGE_BYTES - (100 << 10)).expect("most of it");
    thread::sleep(HANDSHAKE / 3);
    client.try_send(get("/next"));
    thread::sleep(HANDSHAKE / 3);
    client.take(100 << 10).expect("the rest of the page");
}

#[test]
fn a_page_is_not_cut_by_a_reset_when_its_connection_is_closed_for_silence() {
    within(Duration::from_secs(60), || {
        let server = serve();
        let mut client = Raw::connect_narrow(server.local_addr());
        client.send(get("/page"));
        assert_eq!(client.head().status, 200);
        // The client takes nothing for longer than a request may take.
        thread::sleep(3 * HANDSHAKE);
        takes_the_whole_page(client);
    });
}

#[test]
fn a_page_is_not_cut_by_a_reset_when_the_server_shuts_down() {
    within(Duration::from_secs(60), || {
        let server = serve();
        let mut client = Raw::connect_narrow(server.local_addr());
        client.send(get("/page"));
        assert_eq!(client.head().status, 200);
        let down = thread::spawn(|| server.shutdown(Duration::from_secs(20)));
        thread::sleep(HANDSHAKE / 3);
        takes_the_whole_page(client);
        let report = down.join().expect("no panic").expect("it has shut down");
        assert_eq!(report.aborted_count, 0);
    });
}
