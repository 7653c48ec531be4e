//! What is measured of the parts, by time in `benches/parts` and by instructions in
//! `benches/budget`. Each operation handles many items at once, the same in each run, and panics
//! if anything else comes of it than must.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use peregrine::internals::{Members, Post, Queue, Receiver, Sender, Timers, answer_upgrade};
use peregrine::{Limits, Message};

use super::inputs::{ACCEPT, BROWSER_REQUEST, Kind, SHORT_REQUEST, Seed, Stream, put_unmasked};

/// How long streams are: what the kernel holds of them.
const STREAM_BYTES: usize = 64 << 10;
/// How much of a message comes at once that does not come at once.
const READ_BYTES: usize = 4 << 10;
/// How many members of a shard share a socket: what it holds for them.
const SHARING_COUNT: usize = 64;
/// How long a wheel's entries are armed for, and how long a turn takes: a tick.
const ARMED_FOR: Duration = Duration::from_secs(16);
const TURN: Duration = Duration::from_millis(16);
const TOPIC: &str = "weather";

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Something to measure.
pub(crate) trait Operation {
    /// Makes what `run` will use up. It costs a few instructions; its time is the kernel's.
    fn prepare(&mut self) {}

    /// What is measured.
    fn run(&mut self);

    /// Looks at what came of it, for a few instructions.
    fn check(&mut self) {}
}

/// An operation before it is made.
pub(crate) struct Part {
    pub(crate) name: String,
    /// How many items one run handles.
    pub(crate) item_count: usize,
    pub(crate) make: Box<dyn Fn() -> Box<dyn Operation>>,
}

fn part<O: Operation + 'static>(
    name: impl Into<String>,
    item_count: usize,
    make: impl Fn() -> O + 'static,
) -> Part {
    Part { name: name.into(), item_count, make: Box::new(move || Box::new(make())) }
}

/// All of them.
pub(crate) fn parts() -> Vec<Part> {
    let mut parts = vec![
        part("handshake/short", 1, || Handshake::new(SHORT_REQUEST)),
        part("handshake/browser", 1, || Handshake::new(BROWSER_REQUEST)),
    ];
    for (way, name) in [(Way::Lane, "lane"), (Way::Engine, "engine")] {
        for kind in Kind::ALL {
            for bytes in [64, 1 << 10, 16 << 10] {
                let stream = Stream::whole(&mut Seed(1), kind, bytes, STREAM_BYTES);
                let name = format!("{name}/{}/{bytes}", kind.name());
                parts.push(part(name, stream.messages.len(), move || Reception::new(way, &stream)));
            }
        }
    }
    for kind in Kind::ALL {
        let stream = Stream::whole(&mut Seed(1), kind, 16 << 10, STREAM_BYTES);
        let way = Way::Cut(READ_BYTES);
        let name = format!("cut/{}/16384", kind.name());
        parts.push(part(name, stream.messages.len(), move || Reception::new(way, &stream)));
    }
    for (way, name) in [(Way::All, "mixed/all"), (Way::Engine, "mixed/engine")] {
        let stream = Stream::mixed(&mut Seed(2), STREAM_BYTES);
        parts.push(part(name, stream.messages.len(), move || Reception::new(way, &stream)));
    }
    parts.push(part("outbox/copied/64", 64, || Output::new(Pushed::Copied, 64, 64)));
    parts.push(part("outbox/shared/16384", 6, || Output::new(Pushed::Shared, 16 << 10, 6)));
    parts.push(part("mailbox/same-thread", 1000, || Letters::new(1000)));
    for count in [10_000, 100_000] {
        parts.push(part(format!("timers/{count}"), count / 100, move || Ticking::new(count)));
    }
    parts.push(part("topics/join-and-leave", 1000, || Coming::new(1000)));
    for (topic, name) in [(None, "everyone"), (Some(TOPIC), "topic")] {
        for count in [1, 100, 1000, 10_000] {
            let name = format!("publish/{name}/{count}");
            parts.push(part(name, count, move || Publishing::new(topic, count, 1)));
        }
    }
    parts.push(part("publish/everyone/1000/16", 16_000, || Publishing::new(None, 1000, 16)));
    parts
}

/// A request that is answered.
struct Handshake {
    request: &'static str,
    limits: Limits,
    out: Vec<u8>,
}

impl Handshake {
    fn new(request: &'static str) -> Self {
        let mut handshake = Self { request, limits: Limits::default(), out: Vec::new() };
        handshake.run();
        let answer = String::from_utf8_lossy(&handshake.out);
        assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains(ACCEPT), "{answer}");
        handshake
    }
}

impl Operation for Handshake {
    fn run(&mut self) {
        self.out.clear();
        let length = answer_upgrade(self.request.as_bytes(), &self.limits, &mut self.out);
        assert_eq!(length, Some(self.request.len()));
    }
}

/// Who takes a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Lane,
    Engine,
    /// As shards do it, all of it at once.
    All,
    /// As shards do it, in parts of so many bytes.
    Cut(usize),
}

/// A stream that is received.
struct Reception {
    way: Way,
    receiver: Receiver,
    stream: Stream,
    payload_bytes: usize,
    /// Each run unmasks the stream where it lies; a fresh one comes from the kernel.
    buffer: Vec<u8>,
    kernel: [UnixStream; 2],
}

impl Reception {
    fn new(way: Way, stream: &Stream) -> Self {
        let mut reception = Self {
            way,
            receiver: Receiver::new(now()),
            payload_bytes: stream.messages.iter().map(|(_, payload)| payload.len()).sum(),
            buffer: vec![0; stream.frames.len()],
            stream: stream.clone(),
            kernel: UnixStream::pair().expect("sockets").into(),
        };
        reception.prepare();
        let mut expected = stream.messages.iter();
        reception.receive(|message| {
            let opcode = if message.as_text().is_some() { 0x1 } else { 0x2 };
            let expected = expected.next().expect("no more messages than sent");
            let is_same = (opcode, message.as_bytes()) == (expected.0, &expected.1);
            assert!(is_same, "another message than was sent");
        });
        assert_eq!(expected.next(), None, "a message is missing");
        reception
    }

    fn receive(&mut self, mut see: impl FnMut(Message<'_>)) {
        let Self { receiver, buffer, .. } = self;
        let left = match self.way {
            Way::Lane => receiver.lane(buffer, see),
            Way::Engine => receiver.engine(buffer, see),
            Way::All => receiver.all(buffer, see),
            Way::Cut(bytes) => {
                buffer.chunks_mut(bytes).map(|part| receiver.all(part, &mut see)).sum()
            }
        };
        assert_eq!(left, 0, "something is left of the stream");
        assert_eq!(receiver.take_answers(), self.stream.pong_bytes, "each ping is answered");
    }
}

impl Operation for Reception {
    fn prepare(&mut self) {
        let [near, far] = &mut self.kernel;
        near.write_all(&self.stream.frames).expect("room in the kernel");
        far.read_exact(&mut self.buffer).expect("what was written");
    }

    fn run(&mut self) {
        let (mut count, mut bytes) = (0, 0);
        self.receive(|message| {
            count += 1;
            bytes += message.len();
        });
        assert_eq!((count, bytes), (self.stream.messages.len(), self.payload_bytes));
    }
}

/// The other end of a socket, where the same bytes come again and again.
struct Far {
    socket: UnixStream,
    expected: Vec<u8>,
    buffer: Vec<u8>,
    probe: usize,
}

impl Far {
    fn new(socket: UnixStream, expected: Vec<u8>) -> Self {
        let timeout = Some(Duration::from_secs(20));
        socket.set_read_timeout(timeout).expect("a time limit");
        Self { socket, buffer: vec![0; expected.len()], expected, probe: 0 }
    }

    /// Takes what must have come, and compares a byte of it, each time another one.
    fn take(&mut self) {
        self.socket.read_exact(&mut self.buffer).expect("all that was sent");
        self.probe = (self.probe + 7919) % self.expected.len();
        assert_eq!(self.buffer[self.probe], self.expected[self.probe], "at {}", self.probe);
    }

    /// The same, and compares every byte.
    fn compare(&mut self) {
        self.take();
        assert!(self.buffer == self.expected, "other bytes came than were sent");
    }
}

/// A binary message as it comes to clients.
fn encoded(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put_unmasked(&mut frame, 0x82, payload);
    frame
}

fn payload(bytes: usize) -> Vec<u8> {
    (0..=255).cycle().take(bytes).collect()
}

/// How an outbox gets its frames.
#[derive(Clone, Copy)]
enum Pushed {
    Copied,
    Shared,
}

/// Messages that are queued and written.
struct Output {
    queue: Queue,
    pushed: Pushed,
    payload: Vec<u8>,
    frame: Bytes,
    count: usize,
    far: Far,
}

impl Output {
    fn new(pushed: Pushed, payload_bytes: usize, count: usize) -> Self {
        let payload = payload(payload_bytes);
        let frame = Bytes::from(encoded(&payload));
        let (queue, far) = Queue::new().expect("sockets");
        let far = Far::new(far, frame.repeat(count));
        let mut output = Self { queue, pushed, payload, frame, count, far };
        output.run();
        output.far.compare();
        output
    }
}

impl Operation for Output {
    fn run(&mut self) {
        match self.pushed {
            Pushed::Copied => {
                self.queue.push_messages(Message::Binary(&self.payload), self.count);
            }
            Pushed::Shared => self.queue.push_shared(&self.frame, self.count),
        }
        assert!(self.queue.write(), "the kernel has no room");
    }

    fn check(&mut self) {
        self.far.take();
    }
}

/// Envelopes that are sent and taken by one thread.
struct Letters {
    sender: Sender,
    post: Post,
    frame: Bytes,
    count: usize,
}

impl Letters {
    fn new(count: usize) -> Self {
        let (sender, post) = Post::new().expect("a poll");
        Self { sender, post, frame: Bytes::from(encoded(&payload(64))), count }
    }
}

impl Operation for Letters {
    fn run(&mut self) {
        assert_eq!(self.sender.send(&self.frame, self.count), self.count, "the mailbox is full");
        assert_eq!(self.post.take(), (self.count, self.count * self.frame.len()));
    }
}

/// A hundredth of all timers fires and is armed again.
struct Ticking {
    timers: Timers,
    count: usize,
}

impl Ticking {
    fn new(count: usize) -> Self {
        let mut ticking = Self { timers: Timers::new(count, ARMED_FOR), count };
        // Once around: what slots allocate at first, they have.
        (0..100).for_each(|_| ticking.run());
        ticking
    }
}

impl Operation for Ticking {
    fn run(&mut self) {
        let fired_count: usize = (0..10).map(|_| self.timers.pass(TURN)).sum();
        assert_eq!(fired_count, self.count / 100);
    }
}

/// Members who subscribe to a topic, and then do not any more.
struct Coming {
    members: Members,
    count: usize,
}

impl Coming {
    fn new(count: usize) -> Self {
        let (members, _) = Members::new(count, SHARING_COUNT).expect("descriptors");
        Self { members, count }
    }
}

impl Operation for Coming {
    fn run(&mut self) {
        assert_eq!(self.members.subscribe(TOPIC, self.count), self.count);
        assert_eq!(self.members.unsubscribe(TOPIC, self.count), 0);
    }
}

/// A few messages that are published and come to all members.
struct Publishing {
    members: Members,
    topic: Option<&'static str>,
    payload: Vec<u8>,
    message_count: usize,
    far_ends: Vec<Far>,
}

impl Publishing {
    fn new(topic: Option<&'static str>, member_count: usize, message_count: usize) -> Self {
        let payload = payload(64);
        let (mut members, far_ends) =
            Members::new(member_count, SHARING_COUNT).expect("descriptors");
        if let Some(topic) = topic {
            assert_eq!(members.subscribe(topic, member_count), member_count);
        }
        let expected = encoded(&payload).repeat(message_count);
        let sharing = |at| SHARING_COUNT.min(member_count - at * SHARING_COUNT);
        let far = |(at, end)| Far::new(end, expected.repeat(sharing(at)));
        let far_ends = far_ends.into_iter().enumerate().map(far).collect();
        let mut publishing = Self { members, topic, payload, message_count, far_ends };
        publishing.run();
        publishing.far_ends.iter_mut().for_each(Far::compare);
        publishing
    }
}

impl Operation for Publishing {
    fn run(&mut self) {
        for _ in 0..self.message_count {
            let accepted = self.members.publish(self.topic, Message::Binary(&self.payload));
            assert_eq!(accepted, Ok(()));
        }
        self.members.deliver();
    }

    fn check(&mut self) {
        self.far_ends.iter_mut().for_each(Far::take);
    }
}
