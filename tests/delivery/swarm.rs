//! Many clients on few threads, each noting what it gets.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use peregrine::ConnectionId;
use socket2::SockRef;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

use super::common::{self, PATIENCE};
use super::ledger::Stamp;

/// One client: tungstenite's, with small buffers. Blocking, until it joins a swarm.
pub(crate) struct Member {
    pub(crate) socket: WebSocket<TcpStream>,
    pub(crate) id: ConnectionId,
}

impl Member {
    /// Connects; the server's first message is the id.
    pub(crate) fn connect(address: SocketAddr, path: &str) -> Self {
        let mut socket = common::connect(address);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\n\
             Upgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).expect("the server reads");
        let (mut answer, mut buffer) = (Vec::new(), [0; 1024]);
        let head = loop {
            let read = socket.read(&mut buffer).expect("an answer to the upgrade");
            assert!(read > 0, "the server answers the upgrade");
            answer.extend_from_slice(&buffer[..read]);
            if let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
        };
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
        let rest = answer.split_off(head);
        let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0);
        let socket = TcpStream::from_std(socket);
        let mut socket = WebSocket::from_partially_read(socket, rest, Role::Client, Some(config));
        let first = socket.read().expect("a first message");
        let id = first.to_text().ok().and_then(|text| text.parse().ok());
        Self { socket, id: id.unwrap_or_else(|| panic!("an id comes first, not {first:?}")) }
    }

    pub(crate) fn say(&mut self, text: impl Into<String>) {
        self.socket.send(Message::text(text.into())).expect("the server reads");
    }
}

enum Order {
    Join(usize, Box<Member>),
    Say(usize, String),
    Stop,
}

struct Worker {
    orders: Sender<Order>,
    waker: Arc<Waker>,
    thread: JoinHandle<Vec<(usize, Vec<Stamp>)>>,
}

/// How many messages have arrived at all members together.
#[derive(Default)]
struct Arrived {
    count: Mutex<usize>,
    changed: Condvar,
}

/// Clients that stay until the swarm is asked what they got.
pub(crate) struct Swarm {
    workers: Vec<Worker>,
    arrived: Arc<Arrived>,
    pub(crate) ids: Vec<ConnectionId>,
}

/// How many threads read for a swarm.
const THREAD_COUNT: usize = 2;

impl Swarm {
    pub(crate) fn new() -> Self {
        let arrived = Arc::default();
        let workers = (0..THREAD_COUNT).map(|_| Worker::start(Arc::clone(&arrived))).collect();
        Self { workers, arrived, ids: Vec::new() }
    }

    /// A swarm of so many fresh clients.
    pub(crate) fn connect(address: SocketAddr, path: &str, count: usize) -> Self {
        let mut swarm = Self::new();
        for _ in 0..count {
            swarm.join(Member::connect(address, path));
        }
        swarm
    }

    pub(crate) fn join(&mut self, member: Member) {
        let index = self.ids.len();
        self.ids.push(member.id);
        self.order(index, Order::Join(index, Box::new(member)));
    }

    /// Lets a member say something to the server.
    pub(crate) fn say(&self, member: usize, text: impl Into<String>) {
        self.order(member, Order::Say(member, text.into()));
    }

    fn order(&self, member: usize, order: Order) {
        let worker = &self.workers[member % THREAD_COUNT];
        worker.orders.send(order).expect("a worker that has not panicked");
        worker.waker.wake().expect("a wake-up");
    }

    /// Waits until so many messages have arrived, or until nothing has come for a long time.
    pub(crate) fn wait_for(&self, count: usize) {
        let mut arrived = self.arrived.count.lock().unwrap_or_else(PoisonError::into_inner);
        while *arrived < count {
            let before = *arrived;
            let is_still = |now: &mut usize| *now == before;
            let waited = self.arrived.changed.wait_timeout_while(arrived, PATIENCE, is_still);
            arrived = waited.unwrap_or_else(PoisonError::into_inner).0;
            if *arrived == before {
                eprintln!("{before} of {count} messages have arrived, and no more come");
                return;
            }
        }
    }

    /// What each member got, by index. The members leave.
    pub(crate) fn stop(self) -> Vec<Vec<Stamp>> {
        let mut received = vec![Vec::new(); self.ids.len()];
        for worker in &self.workers {
            worker.orders.send(Order::Stop).expect("a worker that has not panicked");
            worker.waker.wake().expect("a wake-up");
        }
        for worker in self.workers {
            let stamps = worker.thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p));
            for (member, stamps) in stamps {
                received[member] = stamps;
            }
        }
        received
    }
}

impl Worker {
    fn start(arrived: Arc<Arrived>) -> Self {
        let (orders, inbox) = channel();
        let poll = Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), Token(usize::MAX)).expect("a waker");
        let thread = thread::spawn(move || {
            Work { poll, inbox, arrived, members: Vec::new() }.run().expect("events")
        });
        Self { orders, waker: Arc::new(waker), thread }
    }
}

/// What a worker's thread owns.
struct Work {
    poll: Poll,
    inbox: Receiver<Order>,
    arrived: Arc<Arrived>,
    /// With their index in the swarm; the place is the token.
    members: Vec<(usize, Box<Member>, Vec<Stamp>)>,
}

impl Work {
    fn run(mut self) -> io::Result<Vec<(usize, Vec<Stamp>)>> {
        let mut events = Events::with_capacity(256);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            let mut count = 0;
            for event in &events {
                if let Some((_, member, stamps)) = self.members.get_mut(event.token().0) {
                    count += read(member, stamps);
                }
            }
            while let Ok(order) = self.inbox.try_recv() {
                match order {
                    Order::Join(index, member) => count += self.join(index, member)?,
                    Order::Say(index, text) => {
                        let (_, member, _) = &mut self.members[index / THREAD_COUNT];
                        member.say(text);
                    }
                    Order::Stop => {
                        let members = self.members.into_iter();
                        return Ok(members.map(|(index, _, stamps)| (index, stamps)).collect());
                    }
                }
            }
            *self.arrived.count.lock().unwrap_or_else(PoisonError::into_inner) += count;
            self.arrived.changed.notify_all();
        }
    }

    fn join(&mut self, index: usize, mut member: Box<Member>) -> io::Result<usize> {
        let token = Token(self.members.len());
        assert_eq!(token.0, index / THREAD_COUNT, "members join in order");
        SockRef::from(member.socket.get_ref()).set_nonblocking(true)?;
        self.poll.registry().register(member.socket.get_mut(), token, Interest::READABLE)?;
        // Some of it may have been read with the id.
        let mut stamps = Vec::new();
        let count = read(&mut member, &mut stamps);
        self.members.push((index, member, stamps));
        Ok(count)
    }
}

/// Reads what is there; every message has to be a stamp.
fn read(member: &mut Member, stamps: &mut Vec<Stamp>) -> usize {
    let before = stamps.len();
    loop {
        match member.socket.read() {
            Ok(Message::Text(text)) => {
                let stamp = Stamp::parse(text.as_str());
                stamps.push(stamp.unwrap_or_else(|| panic!("a stamp was expected, not {text:?}")));
            }
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => break,
            other => panic!("{} got {other:?}", member.id),
        }
    }
    stamps.len() - before
}
