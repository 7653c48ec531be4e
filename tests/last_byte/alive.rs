//! Who is alive: a client counts as gone only if it neither says anything nor takes anything of
//! what is sent to it, as its kernel acknowledges.

use std::io::Read;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use peregrine::{Callbacks, Close, CloseCode, ClosedBy, Limits, RunningServer};

use crate::common::{eventually, start, within};
use crate::raw::{Raw, TEXT, frame, timed};

const DEAD_AFTER: Duration = Duration::from_millis(600);

/// Sends 2 MB for any message; tells how connections end.
fn serve() -> (RunningServer, mpsc::Receiver<Close>) {
    let (closed, closes) = mpsc::channel();
    let closed = Arc::new(Mutex::new(closed));
    let handler = Callbacks::<()>::new()
        .on_message(|_ws, _message| vec![7; 2_000_000].into())
        .on_close(move |_ws, close| {
            let _ = closed.lock().expect("a lock").send(close.clone());
            ().into()
        });
    let mut limits = Limits::default();
    limits.ping_after = DEAD_AFTER / 3;
    limits.idle_timeout = DEAD_AFTER;
    limits.close_timeout = Duration::from_millis(100);
    (start(1, |builder| builder.limits(limits).websocket("/", handler)), closes)
}

/// Reads a little at a time: about 60 KB/s, so that all of it would take half a minute. The server
/// hears nothing meanwhile: its pings wait behind the message.
fn drip(client: &mut Raw, rounds: usize) -> std::io::Result<()> {
    let mut buffer = vec![0; 6000];
    for _ in 0..rounds {
        client.socket.read_exact(&mut buffer)?;
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn asked(server: &RunningServer) -> Raw {
    let mut client = Raw::connect_narrow(server.local_addr());
    client.upgrade("/");
    client.send(frame(TEXT, b"go"));
    client
}

#[test]
fn a_client_that_reads_slowly_all_the_time_is_alive() {
    within(Duration::from_secs(30), || {
        let (server, closes) = serve();
        let mut client = asked(&server);
        let (dripped, time) = timed(|| drip(&mut client, 60));
        dripped.expect("the server does not end the connection");
        assert!(time > 5 * DEAD_AFTER, "{time:?}");
        assert_eq!(closes.try_recv().ok(), None);
    });
}

#[test]
fn a_client_that_stops_reading_is_gone_although_its_kernel_answers() {
    within(Duration::from_secs(30), || {
        let (server, closes) = serve();
        for rounds in [0, 20] {
            let mut client = asked(&server);
            drip(&mut client, rounds).expect("the server does not end the connection");
            let (close, time) = timed(|| closes.recv().expect("it is closed"));
            let told = (close.code(), close.reason(), close.by());
            assert_eq!(told, (CloseCode::GOING_AWAY, "timed out", ClosedBy::Server));
            // One more time if the kernel has acknowledged something in the last one.
            assert!(time < 4 * DEAD_AFTER, "{time:?} after {rounds}");
            eventually(|| server.hub().connection_counts() == [0]);
        }
    });
}

#[test]
fn a_client_for_which_nothing_waits_is_gone_when_it_does_not_answer_pings() {
    within(Duration::from_secs(30), || {
        let (server, closes) = serve();
        let mut client = Raw::upgraded(server.local_addr(), "/");
        let (close, time) = timed(|| closes.recv().expect("it is closed"));
        assert_eq!(close.code(), CloseCode::GOING_AWAY);
        assert!(
            time < 2 * DEAD_AFTER,
            "the kernel's acknowledgements are no signs of life: {time:?}"
        );
        client.skim();
    });
}

/// All that waits is in the kernel, so the shard has noted nothing about it beforehand.
#[test]
fn a_client_that_stops_reading_is_gone_although_its_kernel_answers_probes() {
    within(Duration::from_secs(30), || {
        let (closed, closes) = mpsc::channel();
        let handler = Callbacks::<()>::new()
            .on_message(|_ws, _message| vec![7; 60_000].into())
            .on_close(move |_ws, close| {
                let _ = closed.send(close.clone());
                ().into()
            });
        let mut limits = Limits::default();
        // The kernel probes a closed window after 0.2 s, 0.4 s, 0.8 s .. more.
        let idle_timeout = Duration::from_secs(2);
        (limits.ping_after, limits.idle_timeout) = (idle_timeout / 3, idle_timeout);
        let server = start(1, |builder| builder.limits(limits).websocket("/", handler));
        let client = asked(&server);
        let (close, time) = timed(|| closes.recv().expect("it is closed"));
        assert_eq!(close.code(), CloseCode::GOING_AWAY);
        assert!(time < idle_timeout * 5 / 2, "{time:?}");
        drop(client);
    });
}
