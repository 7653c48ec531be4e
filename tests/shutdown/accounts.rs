//! What is accepted while the server goes down is delivered; what is not, its sender is told.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use peregrine::{Callbacks, ConnectionId, Hub, Limits, SendError};

use super::{LIMIT, SHORT, shut_down};
use crate::common::{SHARD_COUNTS, start, within};
use crate::raw::{CLOSE, PING, Raw, TEXT, close, frame, upgrade};

/// Room for all that a test sends.
fn wide_limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_outbox_bytes = 64 << 20;
    limits.outbox_high_water_bytes = 32 << 20;
    limits
}

/// Reads texts until the Close frame, answers it, and gives the texts back.
fn read_to_the_end(mut raw: Raw) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(frame) = raw.frame() {
        match frame.first {
            TEXT => texts.push(String::from_utf8(frame.payload).expect("UTF-8")),
            PING => {}
            CLOSE => raw.try_send(close(1001, b"")),
            _ => panic!("not a text: {frame:?}"),
        }
    }
    texts
}

/// Sends to each and to all in turn, until it is told that it is over: what was accepted for each.
fn send_until_the_end(sender: usize, hub: &Hub, ids: &[ConnectionId]) -> Vec<Vec<String>> {
    let mut accepted: Vec<Vec<String>> = vec![Vec::new(); ids.len()];
    for number in 0.. {
        let at = number % (ids.len() + 1);
        let text = format!("{sender} {number}");
        let sent = match ids.get(at) {
            Some(&id) => hub.send_to(id, &text),
            None => hub.broadcast("/", &text),
        };
        match sent {
            Ok(()) if at < ids.len() => accepted[at].push(text),
            Ok(()) => accepted.iter_mut().for_each(|texts| texts.push(text.clone())),
            Err(SendError::Overloaded) => thread::yield_now(),
            Err(SendError::ShuttingDown) => break,
            Err(error) => panic!("{error}"),
        }
    }
    accepted
}

#[test]
fn what_the_hub_accepts_during_the_shutdown_is_delivered() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let ids = Callbacks::<()>::new().on_connect(|ws| ws.id().to_string().into());
            let server =
                start(shard_count, |builder| builder.limits(wide_limits()).websocket("/", ids));
            let mut clients: Vec<_> =
                (0..8).map(|_| Raw::upgraded(server.local_addr(), "/")).collect();
            let ids: Vec<ConnectionId> =
                clients.iter_mut().map(|raw| raw.text().parse().expect("an id")).collect();
            let reading: Vec<_> = clients
                .into_iter()
                .map(|raw| thread::spawn(move || read_to_the_end(raw)))
                .collect();
            let send = |sender| {
                let (hub, ids) = (server.hub(), ids.clone());
                thread::spawn(move || send_until_the_end(sender, &hub, &ids))
            };
            let sending: Vec<_> = (0..3).map(send).collect();
            thread::park_timeout(SHORT / 2);
            let (report, _) = shut_down(server, LIMIT).join().expect("it returns");
            assert_eq!((report.open_count, report.aborted_count), (8, 0));
            let accepted: Vec<_> =
                sending.into_iter().map(|sender| sender.join().expect("a sender")).collect();
            for (at, reader) in reading.into_iter().enumerate() {
                let texts = reader.join().expect("a reader");
                for (sender, accepted) in accepted.iter().enumerate() {
                    let prefix = format!("{sender} ");
                    let got: Vec<_> = texts.iter().filter(|t| t.starts_with(&prefix)).collect();
                    assert_eq!(got.len(), accepted[at].len(), "from {sender} to {at}");
                    assert!(got.into_iter().eq(&accepted[at]), "from {sender} to {at}: order");
                }
            }
        });
    }
}

/// Forwards each message to the next partner in turn, and counts what was accepted.
fn forwarder(accepted: Arc<AtomicU64>) -> Callbacks<usize> {
    let ids = Arc::new(Mutex::new(Vec::<ConnectionId>::new()));
    let partners = Arc::clone(&ids);
    Callbacks::new()
        .on_connect(move |ws| {
            ids.lock().expect("no panic").push(ws.id());
            "welcome".into()
        })
        .on_message(move |ws, message| {
            *ws.session_mut() += 1;
            let turn = *ws.session();
            let partner = {
                let ids = partners.lock().expect("no panic");
                ids[turn % ids.len()]
            };
            if ws.send_to(partner, message).is_ok() {
                accepted.fetch_add(1, Ordering::Relaxed);
            }
            ().into()
        })
}

/// Sends bursts until it is over.
fn send_bursts(mut socket: TcpStream, is_over: &AtomicBool) {
    let burst = frame(TEXT, b"to a partner").repeat(20);
    while !is_over.load(Ordering::Relaxed) && socket.write_all(&burst).is_ok() {
        thread::yield_now();
    }
}

/// Counts texts up to the Close frame; then it is over for all.
fn count_texts(mut raw: Raw, is_over: &AtomicBool) -> u64 {
    let mut count = 0;
    while let Some(frame) = raw.frame() {
        count += u64::from(frame.first == TEXT);
        if frame.first == CLOSE {
            break;
        }
    }
    is_over.store(true, Ordering::Relaxed);
    count
}

#[test]
fn what_handlers_are_told_was_accepted_is_delivered() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let accepted = Arc::new(AtomicU64::new(0));
            let forward = forwarder(Arc::clone(&accepted));
            let server =
                start(shard_count, |builder| builder.limits(wide_limits()).websocket("/", forward));
            let mut clients: Vec<_> =
                (0..8).map(|_| Raw::upgraded(server.local_addr(), "/")).collect();
            clients.iter_mut().for_each(|raw| assert_eq!(raw.text(), "welcome"));
            let is_over = Arc::new(AtomicBool::new(false));
            let mut sending = Vec::new();
            let mut reading = Vec::new();
            for raw in clients {
                let socket = raw.socket.try_clone().expect("a descriptor");
                let over = Arc::clone(&is_over);
                sending.push(thread::spawn(move || send_bursts(socket, &over)));
                let over = Arc::clone(&is_over);
                reading.push(thread::spawn(move || count_texts(raw, &over)));
            }
            thread::park_timeout(SHORT / 2);
            let (report, _) = shut_down(server, LIMIT).join().expect("it returns");
            assert_eq!((report.open_count, report.aborted_count), (8, 0));
            let received: u64 =
                reading.into_iter().map(|reader| reader.join().expect("a reader")).sum();
            sending.into_iter().for_each(|sender| sender.join().expect("a sender"));
            let accepted = accepted.load(Ordering::Relaxed);
            assert!(accepted > 100, "the test is too small: {accepted}");
            assert_eq!(received, accepted);
        });
    }
}

/// Connects again and again until nobody listens any more: how often it was served to the end.
fn come_until_refused(address: SocketAddr) -> u64 {
    let mut served_count = 0;
    while let Ok(socket) = TcpStream::connect(address) {
        let mut raw = Raw::over(socket);
        raw.limit_time();
        raw.try_send([upgrade("/").into_bytes(), frame(TEXT, b"hello")].concat());
        // The end may come at any point: before the answer, after it, within it.
        let said = raw.all();
        if let Some(rest) = said.strip_prefix(b"HTTP/1.1 101 ") {
            let is_whole = rest.windows(2).any(|bytes| bytes == [CLOSE, 2 + 23]);
            served_count += u64::from(is_whole);
        } else {
            let is_refusal = said.is_empty() || said.starts_with(b"HTTP/1.1 503 ");
            assert!(is_refusal, "{}", String::from_utf8_lossy(&said));
        }
    }
    served_count
}

#[test]
fn who_comes_while_it_ends_is_served_or_refused() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            for round in 0..20 {
                let counts = Arc::new([const { AtomicU64::new(0) }; 2]);
                let [connects, closes] = [(); 2].map(|()| Arc::clone(&counts));
                let handler = Callbacks::<()>::new()
                    .on_connect(move |_| {
                        connects[0].fetch_add(1, Ordering::Relaxed);
                        ().into()
                    })
                    .on_close(move |_, _| {
                        closes[1].fetch_add(1, Ordering::Relaxed);
                        ().into()
                    });
                let server = start(shard_count, |builder| builder.websocket("/", handler));
                let address = server.local_addr();
                let clients: Vec<_> =
                    (0..6).map(|_| thread::spawn(move || come_until_refused(address))).collect();
                thread::park_timeout(SHORT / 20 * (round % 4));
                server.shutdown(SHORT / 10).expect("no shard panicked");
                let served: u64 =
                    clients.into_iter().map(|client| client.join().expect("a client")).sum();
                let [connects, closes] = [0, 1].map(|at| counts[at].load(Ordering::Relaxed));
                assert_eq!(connects, closes, "on_close, once for each");
                assert!(served <= connects, "{served} of {connects}");
            }
        });
    }
}
