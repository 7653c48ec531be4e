//! The clients: thousands on one thread, which does nothing but read and look at stamps.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use super::served::now_micros;

const REQUEST: &str = "HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// Requests on their way at once.
const PIPELINE: usize = 50;
/// A slow client's kernel takes no more than that, in bytes, so that the server soon notices.
const NARROW_BYTES: usize = 8 << 10;

/// How long deliveries took: counts by microseconds, with 3 % of error at most.
#[derive(Clone)]
pub struct Times {
    counts: Vec<u64>,
}

impl Default for Times {
    fn default() -> Self {
        Self { counts: vec![0; 64 * 32] }
    }
}

impl Times {
    fn add(&mut self, micros: u64, count: u64) {
        let shift = (64 - micros.leading_zeros()).saturating_sub(6);
        self.counts[(shift as usize) * 32 + usize::try_from(micros >> shift).expect("6 bits")] +=
            count;
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The time within which so many of a thousand arrived.
    pub fn per_mille(&self, share: u64) -> Duration {
        let mut left = (self.count() * share).div_ceil(1000);
        for (at, &count) in self.counts.iter().enumerate() {
            left = left.saturating_sub(count);
            if left == 0 {
                let (shift, top) = if at < 64 { (0, at) } else { (at / 32 - 1, at % 32 + 32) };
                return Duration::from_micros((top as u64) << shift);
            }
        }
        Duration::MAX
    }

    pub fn merge(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
    }
}

/// One client.
struct Member {
    socket: mio::net::TcpStream,
    /// The beginning of a frame.
    rest: Vec<u8>,
    count: u64,
    close_code: Option<u16>,
    has_ended: bool,
}

/// All clients.
pub struct Crowd {
    poll: Poll,
    events: Events,
    members: Vec<Member>,
    buffer: Vec<u8>,
    pub times: Times,
    /// How many of them have come to their end.
    pub ended_count: usize,
}

fn open(port: u16, is_slow: bool) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
    if is_slow {
        socket.set_recv_buffer_size(NARROW_BYTES).expect("an option");
    }
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).expect("it listens");
    let mut socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("an option");
    let path = if is_slow { "/?slow=1" } else { "/" };
    write!(socket, "GET {path} {REQUEST}").expect("the server reads");
    socket
}

fn await_upgrade(mut socket: TcpStream) -> mio::net::TcpStream {
    // Nothing follows the head before all have come.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut part = [0; 512];
        let count = socket.read(&mut part).expect("the server answers");
        assert_ne!(count, 0, "refused");
        head.extend_from_slice(&part[..count]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "refused: {}", String::from_utf8_lossy(&head));
    socket.set_nonblocking(true).expect("an option");
    mio::net::TcpStream::from_std(socket)
}

impl Crowd {
    pub fn new() -> Self {
        Self {
            poll: Poll::new().expect("a descriptor"),
            events: Events::with_capacity(4096),
            members: Vec::new(),
            buffer: vec![0; 256 << 10],
            times: Times::default(),
            ended_count: 0,
        }
    }

    /// So many more join, and read. Those that are slow do not, until they are
    /// [woken](Self::wake).
    pub fn join(&mut self, port: u16, mut count: usize, is_slow: bool) {
        while count > 0 {
            let sockets: Vec<_> = (0..count.min(PIPELINE)).map(|_| open(port, is_slow)).collect();
            count -= sockets.len();
            for socket in sockets {
                let socket = await_upgrade(socket);
                let (rest, close_code) = (Vec::new(), None);
                self.members.push(Member { socket, rest, count: 0, close_code, has_ended: false });
                if !is_slow {
                    self.wake(self.members.len() - 1);
                }
            }
        }
    }

    /// From now on this one reads.
    pub fn wake(&mut self, at: usize) {
        let registry = self.poll.registry();
        registry
            .register(&mut self.members[at].socket, Token(at), Interest::READABLE)
            .expect("a new one");
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// The last of them vanish.
    pub fn truncate(&mut self, count: usize) {
        self.members.truncate(count);
    }

    /// How many messages the member has received.
    pub fn count(&self, at: usize) -> u64 {
        self.members[at].count
    }

    pub fn close_code(&self, at: usize) -> Option<u16> {
        self.members[at].close_code
    }

    pub fn total(&self) -> u64 {
        self.members.iter().map(|member| member.count).sum()
    }

    /// Reads what comes within this time, once; whether anything did.
    pub fn read(&mut self, timeout: Duration) -> bool {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        self.poll.poll(&mut events, Some(timeout)).expect("it waits");
        for event in &events {
            let at = event.token().0;
            while self.read_one(at) {}
        }
        let is_any = !events.is_empty();
        self.events = events;
        is_any
    }

    /// Whether there may be more.
    fn read_one(&mut self, at: usize) -> bool {
        let Some(member) = self.members.get_mut(at).filter(|member| !member.has_ended) else {
            return false;
        };
        let kept = member.rest.len();
        self.buffer[..kept].copy_from_slice(&member.rest);
        member.rest.clear();
        let count = match member.socket.read(&mut self.buffer[kept..]) {
            Ok(0) => 0,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                member.rest.extend_from_slice(&self.buffer[..kept]);
                return false;
            }
            Err(_reset) => 0,
        };
        if count == 0 {
            // As clients do. The server waits for this end, as long as `Limits::close_timeout`.
            let _ = member.socket.shutdown(Shutdown::Both);
            member.has_ended = true;
            self.ended_count += 1;
            return false;
        }
        let used = member.take(&self.buffer[..kept + count], &mut self.times);
        member.rest.extend_from_slice(&self.buffer[used..kept + count]);
        kept + count == self.buffer.len()
    }
}

impl Member {
    /// Takes whole frames; how many bytes they were.
    fn take(&mut self, bytes: &[u8], times: &mut Times) -> usize {
        let now = now_micros();
        let mut used = 0;
        while let Some((header, length)) = frame(&bytes[used..]) {
            let payload = &bytes[used + header..used + header + length];
            match bytes[used] {
                0x88 => {
                    self.close_code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    // Its echo: masked with zeros.
                    let code = payload.first_chunk::<2>().expect("a code");
                    let _ = self.socket.write(&[0x88, 0x82, 0, 0, 0, 0, code[0], code[1]]);
                }
                0x82 => {
                    self.count += 1;
                    let stamp = payload.first_chunk().expect("a stamp");
                    times.add(now.saturating_sub(u64::from_be_bytes(*stamp)), 1);
                }
                first => panic!("no frame of this server: {first:#x}"),
            }
            used += header + length;
        }
        used
    }
}

/// The lengths of the header and of the payload of the frame that is here as a whole.
fn frame(bytes: &[u8]) -> Option<(usize, usize)> {
    let (header, length) = match *bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..4)?.first_chunk()?))),
        127 => {
            let length = u64::from_be_bytes(*bytes.get(2..10)?.first_chunk()?);
            (10, usize::try_from(length).ok()?)
        }
        length => (2, usize::from(length)),
    };
    (bytes.len() >= header + length).then_some((header, length))
}
