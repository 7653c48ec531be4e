//! What a case of a table is, and the one runner of them all.
//!
//! A case is what a client sends and what an echo must answer, each frame at the byte with which it
//! is due. It ends with a Close frame, always: ours after all that was sent, unless the case says
//! otherwise; then the server must end the connection.

use std::thread;
use std::time::Duration;

use peregrine::Server;
use peregrine::testing::{TestClient, TestServer};

use crate::common::{start, within};
use crate::echo::{self, PATHS};
use crate::raw::{CLOSE, Frame, Raw, close, frame, upgrade};

/// How long the cases of one table may take on a machine that is busy.
pub const LIMIT: Duration = Duration::from_secs(300);
/// Longer inputs are not cut in every place, but where something begins or ends.
const CUT_EVERYWHERE_BYTES: usize = 300;
/// Longer ones do not come byte by byte.
const BYTE_BY_BYTE_BYTES: usize = 4096;
/// The largest part, in bytes, of an input that is chopped and too long for single ones: odd.
const PART_BYTES: usize = 997;
/// How many clients a server in memory gets; it looks at all it ever had.
const CLIENTS_MAX: usize = 32;

#[derive(Clone, Debug)]
pub struct Case {
    name: String,
    sends: Vec<u8>,
    /// Each with the number of sent bytes at which it is due.
    gets: Vec<(usize, Frame)>,
    end: End,
    unheard: Vec<u8>,
}

#[derive(Clone, Debug)]
enum End {
    /// The connection is as good as new: our Close 1000 is answered by its equal.
    Open,
    /// The last frame sent was a Close; this is the payload of the answer.
    Answer(Vec<u8>),
    /// With the last byte sent it is clear that we are at fault: Close with this code.
    Failure(u16),
}

/// A case of which nothing is said yet.
pub fn case(name: impl Into<String>) -> Case {
    Case {
        name: name.into(),
        sends: Vec::new(),
        gets: Vec::new(),
        end: End::Open,
        unheard: Vec::new(),
    }
}

impl Case {
    /// The same by another name.
    pub fn named(&self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self.clone() }
    }

    /// Sends bytes.
    pub fn sends(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.sends.extend_from_slice(bytes.as_ref());
        self
    }

    /// Gets a frame with the last byte sent so far.
    pub fn gets(mut self, first: u8, payload: impl Into<Vec<u8>>) -> Self {
        self.gets.push((self.sends.len(), Frame { first, payload: payload.into() }));
        self
    }

    /// Sends a frame and gets it back.
    pub fn echoes(self, first: u8, payload: &[u8]) -> Self {
        self.sends(frame(first, payload)).gets(first, payload)
    }

    /// What was sent last is a Close frame, answered by one with this payload.
    pub fn closes(self, payload: impl Into<Vec<u8>>) -> Self {
        Self { end: End::Answer(payload.into()), ..self }
    }

    /// The last byte sent makes it a failure.
    pub fn fails(self, code: u16) -> Self {
        Self { end: End::Failure(code), ..self }
    }

    /// Is sent after all this, and makes no difference.
    pub fn unheard(self, bytes: impl Into<Vec<u8>>) -> Self {
        Self { unheard: bytes.into(), ..self }
    }

    /// All that is sent; and with which byte the server's Close is due.
    fn stream(&self) -> (Vec<u8>, usize) {
        let mut stream = self.sends.clone();
        if matches!(self.end, End::Open) {
            stream.extend(close(1000, b"over"));
        }
        let end = stream.len();
        stream.extend(&self.unheard);
        (stream, end)
    }

    /// Asserts that the server's frames are the right ones, in time: with the first of the parts
    /// sent that end at or after the byte with which a frame is due. `at` tells where.
    fn judge(&self, frames: &[(usize, Frame)], ends: &[usize], way: Way, at: &str) {
        let (mut stream, end) = self.stream();
        stream.truncate(200);
        let told = || format!("{}, {at}, {way:?}: {stream:02x?}", self.name);
        let mut expected = self.gets.clone();
        expected.push((end, self.last_frame(frames)));
        for (due, _) in &mut expected {
            *due = *ends.iter().find(|&end| end >= due).expect("all is sent");
        }
        if matches!(way, Way::Bytes) {
            assert!(frames == expected, "{}:\n{frames:?}\n{expected:?}", told());
        }
        // Control frames overtake data that came with them.
        for is_control in [false, true] {
            let of_kind = |frames: &[(usize, Frame)]| -> Vec<(usize, Frame)> {
                let frames = frames.iter().filter(|(_, frame)| frame.is_control() == is_control);
                frames.cloned().collect()
            };
            let (got, due) = (of_kind(frames), of_kind(&expected));
            assert!(got == due, "{}:\n{got:?}\n{due:?}", told());
        }
        let is_last = frames.last().is_some_and(|(_, frame)| frame.first == CLOSE);
        assert!(is_last, "{}: nothing follows the Close frame", told());
    }

    /// The Close frame that has to come.
    fn last_frame(&self, frames: &[(usize, Frame)]) -> Frame {
        let payload = match &self.end {
            End::Open => [&1000u16.to_be_bytes()[..], b"over"].concat(),
            End::Answer(payload) => payload.clone(),
            End::Failure(code) => {
                // Any reason is right that is one.
                let reason = frames.last().and_then(|(_, frame)| frame.payload.get(2..));
                let reason = reason.filter(|reason| std::str::from_utf8(reason).is_ok());
                [&code.to_be_bytes(), reason.unwrap_or_default()].concat()
            }
        };
        Frame { first: CLOSE, payload }
    }
}

/// How a stream reaches the server.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Up to its last byte that is heard; the rest apart.
    AtOnce,
    Cut(usize),
    Parts,
    Bytes,
}

impl Way {
    /// The ways for a stream.
    fn all(end: usize) -> Vec<Self> {
        let mut ways = vec![Self::AtOnce];
        ways.push(if end <= BYTE_BY_BYTE_BYTES { Self::Bytes } else { Self::Parts });
        // Where the rest is cut makes no difference: it is not heard.
        if end <= CUT_EVERYWHERE_BYTES {
            ways.extend((1..=end).map(Self::Cut));
        } else {
            let cuts = (1..20)
                .chain((1..24).map(|part| end / 24 * part))
                .chain(end.saturating_sub(12).max(1)..end);
            ways.extend(cuts.chain([end]).map(Self::Cut));
        }
        ways
    }

    /// Where the parts of a stream end.
    fn ends(self, length: usize, end: usize) -> Vec<usize> {
        let mut ends: Vec<usize> = match self {
            Self::AtOnce => vec![end],
            Self::Cut(cut) => vec![cut],
            Self::Parts => {
                (PART_BYTES..length).step_by(PART_BYTES.max(length / 1000 * 2 + 1)).collect()
            }
            Self::Bytes => (1..=end).collect(),
        };
        if ends.last() != Some(&length) {
            ends.push(length);
        }
        ends
    }
}

/// Takes a frame off what a server sent, once all of it is there.
fn take_frame(bytes: &mut Vec<u8>) -> Option<Frame> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    assert_eq!(second & 0x80, 0, "a server's frame is not masked");
    assert_eq!(first & 0x70, 0, "no extension was negotiated");
    let (header, length) = match second {
        126 => (4, u64::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)),
        length => (2, u64::from(length)),
    };
    let shortest = match length {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    };
    assert_eq!(header, shortest, "a length is written in its shortest form");
    let end = header + usize::try_from(length).expect("memory");
    let payload = bytes.get(header..end)?.to_vec();
    bytes.drain(..end);
    Some(Frame { first, payload })
}

/// The frames that a server sent.
pub fn frames(mut bytes: Vec<u8>) -> Vec<Frame> {
    let frames = std::iter::from_fn(|| take_frame(&mut bytes)).collect();
    assert!(bytes.is_empty(), "half a frame: {bytes:02x?}");
    frames
}

/// A server in memory, and as many new ones as its clients need.
struct Memory {
    build: fn() -> TestServer,
    server: Option<(TestServer, usize)>,
}

impl Memory {
    /// A client whose upgrade was granted.
    fn upgraded(&mut self, path: &str) -> (&mut TestServer, TestClient) {
        self.server.take_if(|(_, client_count)| *client_count == CLIENTS_MAX);
        let (server, client_count) = self.server.get_or_insert_with(|| ((self.build)(), 0));
        *client_count += 1;
        let client = server.open();
        server.send_bytes(client, upgrade(path));
        let head = server.take_bytes(client);
        assert!(head.starts_with(b"HTTP/1.1 101 ") && head.ends_with(b"\r\n\r\n"));
        (server, client)
    }

    fn run(&mut self, case: &Case, path: &str, way: Way) {
        let at = format!("in memory at {path}");
        let (server, client) = self.upgraded(path);
        let (stream, end) = case.stream();
        let ends = way.ends(stream.len(), end);
        let (mut bytes, mut frames, mut start) = (Vec::new(), Vec::new(), 0);
        for &end in &ends {
            server.send_bytes(client, &stream[start..end]);
            bytes.extend(server.take_bytes(client));
            frames.extend(std::iter::from_fn(|| take_frame(&mut bytes)).map(|f| (end, f)));
            start = end;
        }
        assert!(bytes.is_empty(), "{}, {at}, {way:?}: half a frame", case.name);
        case.judge(&frames, &ends, way, &at);
        assert!(server.has_ended(client), "{}, {at}, {way:?}: the server ends it", case.name);
    }
}

fn run_over_a_socket(case: &Case, address: std::net::SocketAddr, path: &str, way: Way) {
    let mut raw = Raw::upgraded(address, path);
    let (mut stream, end) = case.stream();
    if matches!(way, Way::AtOnce) {
        // The answer does not wait for more.
        stream.truncate(end);
    }
    let length = stream.len();
    let mut writer = Raw::over(raw.socket.try_clone().expect("a descriptor"));
    let ends = way.ends(stream.len(), end);
    // Whoever only writes is not read from for ever.
    let writing = thread::spawn(move || {
        let mut start = 0;
        for end in ends {
            writer.try_send(&stream[start..end]);
            start = end;
        }
    });
    // Nobody knows what of it the server gets at once.
    let frames: Vec<_> = raw.frames().into_iter().map(|frame| (length, frame)).collect();
    writing.join().expect("a writer");
    let way = if matches!(way, Way::Bytes) { Way::Parts } else { way };
    case.judge(&frames, &[length], way, &format!("over a socket at {path}"));
}

/// Runs a table in every way there is.
pub fn run(cases: Vec<Case>) {
    run_in_memory(memory, &cases);
    run_over_sockets(&cases);
}

/// The server that most tables are for.
fn memory() -> TestServer {
    TestServer::new(echo::serve(Server::builder())).expect("a right server")
}

/// Runs a table against a server of its own without sockets, at every split.
pub fn run_in_memory(build: fn() -> TestServer, cases: &[Case]) {
    run_in_ways(build, cases, usize::MAX);
}

/// Runs a table that has very many cases: without sockets, at once and byte by byte.
pub fn run_quickly(cases: &[Case]) {
    run_in_ways(memory, cases, 2);
}

fn run_in_ways(build: fn() -> TestServer, cases: &[Case], way_count: usize) {
    let cases = cases.to_vec();
    within(LIMIT, move || {
        let mut memory = Memory { build, server: None };
        for case in &cases {
            let (_, end) = case.stream();
            for path in PATHS {
                for way in Way::all(end).into_iter().take(way_count) {
                    memory.run(case, path, way);
                }
            }
        }
    });
}

/// Runs a table over sockets, at once and chopped.
pub fn run_over_sockets(cases: &[Case]) {
    let cases = cases.to_vec();
    within(LIMIT, move || {
        let server = start(1, echo::serve);
        for case in &cases {
            let (_, end) = case.stream();
            for path in PATHS {
                for way in [Way::AtOnce, Way::Cut(end / 2), Way::all(end)[1]] {
                    run_over_a_socket(case, server.local_addr(), path, way);
                }
            }
        }
    });
}
