//! One process takes over from another on the same port, over real signals: nothing that a client
//! was told is stored is missing, whether the first one shuts down or dies.
//!
//! What counts as told: the client has read the acknowledgement. The server gives it after it has
//! appended the message to the journal, which both processes share. What is not acknowledged, the
//! client sends again, to whomever it reaches.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "the modules are those of one program")]

mod common;
#[path = "common/process.rs"]
mod process;
#[path = "common/raw.rs"]
mod raw;

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::Signal;
use tungstenite::{Error, HandshakeError, Message};

use self::common::{Client, PATIENCE, within};
use self::process::Process;
use self::raw::{Raw, TEXT, frame, get, timed, until, upgrade};

/// How long any of these tests may take.
const LIMIT: Duration = Duration::from_secs(120);
/// The most that a process may be late.
const MARGIN: Duration = Duration::from_secs(5);
const RESTART: u16 = 1012;
/// How many messages a client has on their way.
const WINDOW_COUNT: usize = 8;

/// A journal of a test's own, gone with it.
struct Journal(PathBuf);

impl Journal {
    fn new(name: &str) -> Self {
        let name = format!("peregrine-journal-{name}-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    /// The numbers that each client has stored, in the journal's order.
    fn numbers(&self) -> HashMap<String, Vec<usize>> {
        let mut numbers = HashMap::<String, Vec<usize>>::new();
        for line in fs::read_to_string(&self.0).expect("a journal").lines() {
            let (name, number) = line.split_once(' ').expect("a name and a number");
            numbers.entry(name.to_owned()).or_default().push(number.parse().expect("a number"));
        }
        numbers
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The example `graceful`, as a process.
struct Server {
    process: Process,
    address: SocketAddr,
}

impl Server {
    fn start(address: &str, journal: &Journal, grace: Duration) -> Self {
        let mut command = process::example("graceful");
        let grace = grace.as_secs().to_string();
        let process = Process::start(command.arg(address).arg(&journal.0).arg(grace));
        let address = process.after("ws://");
        let address = address.trim_end_matches("/journal").parse().expect("an address");
        Self { process, address }
    }

    /// Another process at the same address.
    fn successor(&self, journal: &Journal) -> Self {
        Self::start(&self.address.to_string(), journal, PATIENCE)
    }

    /// Waits for a clean end: how many connections were open, and how many dropped.
    fn report(&mut self, limit: Duration) -> (usize, usize) {
        let (status, lines) = self.process.end(limit);
        assert!(status.success(), "{status}, {lines:?}");
        let numbers: Vec<usize> =
            lines.concat().split(' ').filter_map(|word| word.parse().ok()).collect();
        let [open, aborted] = numbers[..] else { panic!("no report: {lines:?}") };
        (open, aborted)
    }
}

/// What the clients have seen so far.
#[derive(Default)]
struct Seen {
    is_over: AtomicBool,
    /// How many are connected.
    connected_count: AtomicUsize,
    acknowledged_count: AtomicUsize,
    /// How many connections ended with Close 1012.
    restart_count: AtomicUsize,
    /// How many connections ended without a Close frame.
    broken_count: AtomicUsize,
    /// How often a connection ended before the upgrade was answered.
    unanswered_count: AtomicUsize,
}

fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::SeqCst);
}

/// A client that sends its numbered messages until it is over.
struct Sender {
    name: String,
    address: SocketAddr,
    /// All up to this number are acknowledged.
    acknowledged: usize,
    seen: Arc<Seen>,
}

impl Sender {
    fn is_over(&self) -> bool {
        self.seen.is_over.load(Ordering::SeqCst)
    }

    /// Comes back until it is over; how much was acknowledged.
    fn run(mut self) -> (String, usize) {
        while !self.is_over() {
            if let Some(client) = self.connect() {
                count(&self.seen.connected_count);
                self.talk(client);
                self.seen.connected_count.fetch_sub(1, Ordering::SeqCst);
            }
        }
        (self.name, self.acknowledged)
    }

    fn connect(&self) -> Option<Client> {
        let socket = match TcpStream::connect(self.address) {
            Ok(socket) => socket,
            // The process has died, and the kernel has not seen it yet.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                count(&self.seen.unanswered_count);
                return None;
            }
            Err(error) => panic!("somebody always listens: {error}"),
        };
        socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        socket.set_write_timeout(Some(PATIENCE)).expect("a time limit");
        match tungstenite::client(format!("ws://{}/journal", self.address), socket) {
            Ok((client, _)) => Some(Client(client)),
            Err(HandshakeError::Failure(Error::Http(response))) => {
                assert_eq!(response.status(), 503, "it goes down, or lets everybody in");
                None
            }
            Err(error) => {
                let is_silence = error.to_string().contains("timed out");
                assert!(!is_silence, "no answer to the upgrade: {error}");
                count(&self.seen.unanswered_count);
                None
            }
        }
    }

    /// Sends what is not acknowledged, and more, until the connection ends.
    fn talk(&mut self, Client(mut socket): Client) {
        let mut sent = self.acknowledged;
        let mut is_closing = false;
        loop {
            while !is_closing && sent < self.acknowledged + WINDOW_COUNT && !self.is_over() {
                sent += 1;
                // A failure is the connection's end, which reading tells.
                let _ = socket.send(Message::text(format!("{} {sent}", self.name)));
            }
            if !is_closing && self.is_over() && sent == self.acknowledged {
                is_closing = true;
                let _ = socket.close(None);
            }
            match socket.read() {
                Ok(Message::Text(text)) => {
                    self.acknowledged += 1;
                    let expected = format!("stored {} {}", self.name, self.acknowledged);
                    assert_eq!(text.as_str(), expected, "acknowledged in order");
                    count(&self.seen.acknowledged_count);
                }
                Ok(Message::Close(frame)) if !is_closing => {
                    assert_eq!(frame.map(|frame| u16::from(frame.code)), Some(RESTART));
                    count(&self.seen.restart_count);
                    is_closing = true;
                }
                Ok(_) => {}
                Err(Error::ConnectionClosed) => return,
                Err(error) => {
                    let is_silence =
                        matches!(&error, Error::Io(e) if e.kind() == ErrorKind::WouldBlock);
                    assert!(!is_silence, "the server says nothing");
                    if !is_closing {
                        count(&self.seen.broken_count);
                    }
                    return;
                }
            }
        }
    }
}

/// Clients that send all the time, each on a thread of its own.
struct Senders {
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<(String, usize)>>,
}

impl Senders {
    fn start(address: SocketAddr, count: usize) -> Self {
        let seen = Arc::<Seen>::default();
        let run = |at| {
            let (name, seen) = (format!("client-{at}"), Arc::clone(&seen));
            let sender = Sender { name, address, acknowledged: 0, seen };
            thread::spawn(move || sender.run())
        };
        let threads = (0..count).map(run).collect();
        let senders = Self { seen, threads };
        senders.await_connected(count);
        senders.await_more(count * 10);
        senders
    }

    fn await_connected(&self, count: usize) {
        let connected_count = || self.count(|seen| &seen.connected_count);
        until("all are connected", || connected_count() == count);
    }

    fn await_more(&self, count: usize) {
        let acknowledged_count = || self.seen.acknowledged_count.load(Ordering::SeqCst);
        let before = acknowledged_count();
        until("more is acknowledged", || acknowledged_count() >= before + count);
    }

    fn count(&self, counter: impl FnOnce(&Seen) -> &AtomicUsize) -> usize {
        counter(&self.seen).load(Ordering::SeqCst)
    }

    /// Ends them, and compares what they were told with what is stored.
    fn end(self, journal: &Journal) -> Arc<Seen> {
        self.seen.is_over.store(true, Ordering::SeqCst);
        let acknowledged: Vec<_> =
            self.threads.into_iter().map(|thread| thread.join().expect("a client")).collect();
        let numbers = journal.numbers();
        for (name, acknowledged) in acknowledged {
            // What was sent twice may stand there twice; nothing is left out or out of order.
            let mut highest = 0;
            for &number in &numbers[&name] {
                assert!(number <= highest + 1, "{name}: {number} follows {highest}");
                highest = highest.max(number);
            }
            assert!(highest >= acknowledged, "{name}: {highest} of {acknowledged} are stored");
        }
        self.seen
    }
}

#[test]
fn who_is_closed_goes_on_with_the_new_process_and_nothing_acknowledged_is_missing() {
    within(LIMIT, || {
        const CLIENT_COUNT: usize = 24;
        let journal = Journal::new("graceful");
        let grace = Duration::from_secs(6);
        let mut first = Server::start("127.0.0.1:0", &journal, grace);
        let senders = Senders::start(first.address, CLIENT_COUNT);
        let mut second = first.successor(&journal);
        senders.await_more(CLIENT_COUNT);

        first.process.signal(Signal::TERM);
        let ((open, aborted), took) = timed(|| first.report(grace + MARGIN));
        assert!(took < grace + MARGIN, "it took {took:?}");
        assert_eq!((open, aborted), (CLIENT_COUNT, 0), "all were the first one's");
        assert_eq!(senders.count(|seen| &seen.restart_count), open);
        senders.await_more(CLIENT_COUNT * 10);
        senders.await_connected(CLIENT_COUNT);

        let seen = senders.end(&journal);
        assert_eq!(seen.broken_count.load(Ordering::SeqCst), 0, "who reads gets a Close frame");
        assert_eq!(seen.unanswered_count.load(Ordering::SeqCst), 0, "who comes gets an answer");
        second.process.signal(Signal::INT);
        assert_eq!(second.report(PATIENCE + MARGIN), (0, 0));
    });
}

/// Comes and goes all the time until it is over. Everybody is let in, and counted, or turned away;
/// nobody is reset.
fn come_and_go(address: SocketAddr, is_over: &AtomicBool, let_in_count: &AtomicUsize) {
    while !is_over.load(Ordering::SeqCst) {
        let mut raw = Raw::connect(address);
        raw.send(upgrade("/journal"));
        match raw.head().status {
            101 => count(let_in_count),
            status => assert_eq!(status, 503, "it goes down"),
        }
    }
}

#[test]
fn who_is_on_the_way_in_during_a_replacement_is_let_in_or_turned_away() {
    within(LIMIT, || {
        let journal = Journal::new("newcomers");
        let grace = Duration::from_secs(3);
        let mut first = Server::start("127.0.0.1:0", &journal, grace);
        let is_over = Arc::new(AtomicBool::new(false));
        let let_in_count = Arc::new(AtomicUsize::new(0));
        let newcomers = [(); 4].map(|()| {
            let shared = (Arc::clone(&is_over), Arc::clone(&let_in_count));
            let address = first.address;
            thread::spawn(move || come_and_go(address, &shared.0, &shared.1))
        });
        for _ in 0..3 {
            let second = Server::start(&first.address.to_string(), &journal, grace);
            let before = let_in_count.load(Ordering::SeqCst);
            until("they come", || let_in_count.load(Ordering::SeqCst) > before + 100);
            first.process.signal(Signal::TERM);
            first.report(grace + MARGIN);
            first = second;
        }
        is_over.store(true, Ordering::SeqCst);
        for newcomer in newcomers {
            newcomer.join().expect("nobody is reset");
        }
    });
}

/// The machine stays up: what the process has written is in the file.
#[test]
fn who_loses_a_process_that_is_killed_goes_on_with_another() {
    within(LIMIT, || {
        const CLIENT_COUNT: usize = 16;
        let journal = Journal::new("killed");
        let first = Server::start("127.0.0.1:0", &journal, PATIENCE);
        let senders = Senders::start(first.address, CLIENT_COUNT);
        let second = first.successor(&journal);
        first.process.signal(Signal::KILL);
        until("all have noticed", || senders.count(|seen| &seen.broken_count) == CLIENT_COUNT);
        senders.await_more(CLIENT_COUNT * 10);
        senders.await_connected(CLIENT_COUNT);
        assert_eq!(senders.end(&journal).restart_count.load(Ordering::SeqCst), 0);
        drop(second);
    });
}

#[test]
fn a_second_signal_ends_it_at_once() {
    within(LIMIT, || {
        let journal = Journal::new("twice");
        let mut server = Server::start("127.0.0.1:0", &journal, LIMIT);
        let mut silent: Vec<_> =
            (0..5).map(|_| Raw::upgraded(server.address, "/journal")).collect();
        let readiness = || {
            let mut balancer = Raw::connect(server.address);
            balancer.send(get("/ready"));
            balancer.answer().status
        };
        assert_eq!(readiness(), 200);
        server.process.signal(Signal::TERM);
        until("it is not ready any more", || readiness() == 503);
        server.process.signal(Signal::INT);
        let (report, took) = timed(|| server.report(MARGIN));
        assert_eq!(report, (5, 5));
        assert!(took < MARGIN, "it took {took:?}");
        // Not even then without a word.
        for raw in &mut silent {
            assert_eq!(raw.frame().expect("a Close frame").close().0, RESTART);
        }
    });
}

#[test]
fn who_never_reads_is_dropped_at_the_deadline_and_counted() {
    within(LIMIT, || {
        let journal = Journal::new("unread");
        let grace = Duration::from_secs(5);
        let mut server = Server::start("127.0.0.1:0", &journal, grace);
        let mut deaf: Vec<_> = (0..3).map(|_| Raw::connect_narrow(server.address)).collect();
        let line = frame(TEXT, &[b'x'; 16 << 10]);
        for raw in &mut deaf {
            raw.upgrade("/journal");
            raw.flood(&line, 64 << 20, Duration::from_millis(200));
        }
        let mut polite: Vec<_> =
            (0..3).map(|_| Client::connect(server.address, "/journal")).collect();
        server.process.signal(Signal::TERM);
        for client in &mut polite {
            assert_eq!(client.close_code(), RESTART);
        }
        let (report, took) = timed(|| server.report(grace + MARGIN));
        assert_eq!(report, (6, 3));
        assert!(took < grace + MARGIN, "it took {took:?}");
    });
}
