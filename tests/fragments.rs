//! Messages in pieces over real sockets: `Handler::on_chunk`, for uploads larger than memory.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "the modules are those of one program")]

#[path = "common/alone.rs"]
mod alone;
mod common;
#[path = "common/raw.rs"]
mod raw;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use peregrine::{
    Callbacks, Chunk, Close, ClosedBy, Handler, Limits, Message, Reply, ServerBuilder,
};
use peregrine::{RunningServer, WebSocket};

use self::common::{Client, SHARD_COUNTS, start, within};
use self::raw::{
    BINARY, CLOSE, CONTINUATION, FIN, MASK, PING, PONG, Raw, TEXT, close, frame, header,
    next_is_served, witnessed_echo,
};

const LIMIT: Duration = Duration::from_secs(60);

/// The size of an upload, and of the frames of one that has many, in bytes.
const UPLOAD_BYTES: usize = 64 << 20;
const FRAME_BYTES: usize = 1 << 20;

/// After how many bytes an upload repeats itself: odd, so that every frame is different.
const PERIOD: usize = 251;

/// What a piece may have at most: a shard's receive buffer.
const PIECE_BYTES_MAX: usize = 128 << 10;

/// Adds uploads up and tells the client what it has seen.
struct Upload {
    largest_piece: AtomicUsize,
    /// What every piece is a part of.
    pattern: Vec<u8>,
}

impl Upload {
    fn new() -> Self {
        Self { largest_piece: AtomicUsize::new(0), pattern: pattern(PERIOD + PIECE_BYTES_MAX) }
    }
}

#[derive(Debug, Default)]
struct Sum {
    bytes: usize,
    /// The payload's bytes count up, each message anew.
    is_right: bool,
}

impl Handler for Upload {
    type Session = Sum;

    fn receives_chunks(&self) -> bool {
        true
    }

    fn on_message<'m>(&self, _: &mut WebSocket<'_, Sum>, message: Message<'m>) -> Reply<'m> {
        panic!("who wants pieces gets no message: {message:?}");
    }

    fn on_chunk<'m>(&self, ws: &mut WebSocket<'_, Sum>, fragment: Chunk<'m>) -> Reply<'m> {
        let bytes = fragment.as_bytes();
        self.largest_piece.fetch_max(bytes.len(), Ordering::Relaxed);
        let sum = ws.session_mut();
        if fragment.is_first() {
            *sum = Sum { bytes: 0, is_right: true };
        }
        sum.is_right &= bytes == &self.pattern[sum.bytes % PERIOD..][..bytes.len()];
        sum.bytes += bytes.len();
        if !fragment.is_last() {
            return Reply::none();
        }
        let largest = self.largest_piece.load(Ordering::Relaxed);
        format!("{} {} {}", sum.bytes, sum.is_right, largest <= PIECE_BYTES_MAX).into()
    }
}

/// The beginning of an upload: bytes that count up.
fn pattern(length: usize) -> Vec<u8> {
    (0..PERIOD).cycle().take(length).map(|byte| byte.to_le_bytes()[0]).collect()
}

/// A server with room for uploads.
fn serve(shard_count: usize, build: impl FnOnce(ServerBuilder) -> ServerBuilder) -> RunningServer {
    let mut limits = Limits::default();
    (limits.max_message_bytes, limits.max_frame_bytes) = (UPLOAD_BYTES, UPLOAD_BYTES);
    start(shard_count, |app| build(app.limits(limits)))
}

/// What the process holds in memory, in bytes.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = statm.split(' ').nth(1).and_then(|field| field.parse().ok()).expect("pages");
    pages * 4096
}

/// An upload in frames of this size, with a ping between any two.
fn upload(client: &mut Raw, frame_bytes: usize) {
    let masks = MASK.iter().cycle();
    let pattern = pattern(4 * PERIOD + FRAME_BYTES);
    let masked: Vec<u8> = pattern.iter().zip(masks).map(|(byte, key)| byte ^ key).collect();
    // Where both the pattern and the mask stand as they do at this place, a multiple of four.
    let place = |at: usize| (at % PERIOD..).step_by(PERIOD).find(|at| at % 4 == 0).expect("one");
    let mut ping_count = 0;
    for start in (0..UPLOAD_BYTES).step_by(frame_bytes) {
        let opcode = if start == 0 { BINARY } else { CONTINUATION };
        let is_last = start + frame_bytes >= UPLOAD_BYTES;
        let first = if is_last { opcode } else { opcode & !FIN };
        client.send(header(first, frame_bytes as u64));
        for at in (start..start + frame_bytes).step_by(FRAME_BYTES) {
            client.send(&masked[place(at)..][..FRAME_BYTES]);
        }
        if !is_last {
            client.send(frame(PING, b"still there?"));
            let pong = client.frame().expect("a pong within the message");
            assert_eq!((pong.first, pong.payload.as_slice()), (PONG, &b"still there?"[..]));
            ping_count += 1;
        }
    }
    assert_eq!(ping_count, UPLOAD_BYTES / frame_bytes - 1);
}

#[test]
fn an_upload_needs_no_more_memory_than_a_receive_buffer() {
    // Memory is the process's, and other tests have theirs.
    alone::alone("an_upload_needs_no_more_memory_than_a_receive_buffer", LIMIT, || {
        for shard_count in SHARD_COUNTS {
            let running = serve(shard_count, |app| app.websocket("/", Upload::new()));
            let before = resident_bytes();
            for frame_bytes in [UPLOAD_BYTES, FRAME_BYTES] {
                let mut client = Raw::upgraded(running.local_addr(), "/");
                upload(&mut client, frame_bytes);
                assert_eq!(client.text(), format!("{UPLOAD_BYTES} true true"));
            }
            // Most of it is what the client sends.
            let grown = resident_bytes().saturating_sub(before);
            assert!(grown < UPLOAD_BYTES / 8, "{grown} bytes are held");
        }
    });
}

#[test]
fn a_message_in_one_small_frame_is_its_own_first_and_last_piece() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let echo = Callbacks::<()>::new()
                .on_message(|_, _| panic!("who wants pieces gets no message"))
                .on_chunk(|_, fragment| {
                    assert!(fragment.is_first() && fragment.is_last());
                    fragment.message().into()
                });
            let running = start(shard_count, |app| app.websocket("/", echo));
            let mut client = Client::connect(running.local_addr(), "/");
            for text in ["one", "", "größer"] {
                client.send(text);
                assert_eq!(client.text(), text);
            }
            client.send_bytes([0xFF, 0]);
            assert_eq!(client.bytes(), [0xFF, 0]);
        });
    }
}

#[test]
fn the_pieces_of_a_text_are_texts_however_it_is_cut() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            // Whole characters, or it would be no text; put together by the session.
            let gather = Callbacks::<String>::new().on_chunk(|ws, fragment| {
                let piece = fragment.as_text().expect("all pieces of a text are text");
                ws.session_mut().push_str(piece);
                if !fragment.is_last() {
                    return Reply::none();
                }
                std::mem::take(ws.session_mut()).into()
            });
            let running = start(shard_count, |app| app.websocket("/", gather));
            let mut client = Raw::upgraded(running.local_addr(), "/");
            let mut bystander = Client::connect(running.local_addr(), "/");
            let text = "aß€🦅";
            for cut in 0..text.len() {
                let (head, tail) = text.as_bytes().split_at(cut);
                client.send(frame(TEXT & !FIN, head));
                client.send(frame(CONTINUATION, tail));
                assert_eq!(client.text(), text);
                // In one frame, that stops on the way.
                let whole = frame(TEXT, text.as_bytes());
                client.send(&whole[..6 + cut]);
                bystander.send("meanwhile");
                assert_eq!(bystander.text(), "meanwhile");
                client.send(&whole[6 + cut..]);
                assert_eq!(client.text(), text);
            }
        });
    }
}

/// What the handler was told, in order.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Piece(Vec<u8>, bool, bool),
    Closed(Close),
}

/// An endpoint that tells what it is told, and panics at `panic`.
fn witness() -> (Callbacks<()>, mpsc::Receiver<Told>) {
    let (tell, told) = mpsc::channel();
    let tell_close = tell.clone();
    let handler = Callbacks::new()
        .on_chunk(move |_, fragment| {
            assert_ne!(fragment.as_text(), Some("panic"), "on purpose");
            let piece = fragment.as_bytes().to_vec();
            let _ = tell.send(Told::Piece(piece, fragment.is_first(), fragment.is_last()));
            Reply::none()
        })
        .on_close(move |_, close| {
            let _ = tell_close.send(Told::Closed(close.clone()));
            Reply::none()
        });
    (handler, told)
}

/// Sends bytes that end the connection: its first piece is seen, then `on_close`, once; the client
/// gets the code; others notice nothing.
fn assert_ends(bytes: &[Vec<u8>], first_piece: Option<&[u8]>, code: u16, by: ClosedBy) {
    for shard_count in SHARD_COUNTS {
        let (handler, told) = witness();
        let (echo, _closes) = witnessed_echo();
        let mut limits = Limits::default();
        (limits.max_message_bytes, limits.max_frame_bytes) = (1000, 1000);
        let running = start(shard_count, |app| {
            app.limits(limits).websocket("/", handler).websocket("/echo", echo)
        });
        let mut client = Raw::upgraded(running.local_addr(), "/");
        for (at, bytes) in bytes.iter().enumerate() {
            client.send(bytes);
            if at == 0
                && let Some(piece) = first_piece
            {
                let expected = Told::Piece(piece.to_vec(), true, false);
                assert_eq!(told.recv().expect("the first piece"), expected);
            }
        }
        let frame = client.frame().expect("a Close frame");
        assert_eq!((frame.first, frame.close().0), (CLOSE, code), "{shard_count} shards");
        client.try_send(close(code, b""));
        client.ended();
        drop(client);
        next_is_served(running.local_addr(), "/echo");
        drop(running.shutdown(Duration::from_secs(5)));
        let rest: Vec<Told> = told.iter().collect();
        let [Told::Closed(close)] = &rest[..] else { panic!("on_close once, not {rest:?}") };
        assert_eq!((close.code(), close.by()), (code.into(), by));
    }
}

#[test]
fn a_close_in_the_middle_of_a_message_is_answered_and_on_close_is_called_once() {
    within(LIMIT, || {
        let bytes = [frame(TEXT & !FIN, b"never "), close(4000, b"changed my mind")];
        assert_ends(&bytes, Some(b"never "), 4000, ClosedBy::Peer);
    });
}

#[test]
fn a_message_above_its_limit_gets_1009_on_the_header_that_makes_it_so() {
    within(LIMIT, || {
        assert_ends(&[header(BINARY, 1001)], None, 1009, ClosedBy::Server);
        let bytes = [frame(BINARY & !FIN, &[7; 600]), header(CONTINUATION, 401)];
        assert_ends(&bytes, Some(&[7; 600]), 1009, ClosedBy::Server);
    });
}

#[test]
fn a_text_that_is_not_utf_8_gets_1007_also_across_a_cut() {
    within(LIMIT, || {
        for tail in [&b"\xC3"[..], b"\xFF"] {
            // The rest of the last frame does not have to come.
            let mut bad = frame(CONTINUATION, tail);
            bad[1] += 1;
            let bytes = [frame(TEXT & !FIN, b"ab\xE2\x82"), bad];
            assert_ends(&bytes, Some(b"ab"), 1007, ClosedBy::Server);
        }
        let bytes = [frame(TEXT & !FIN, b"ab\xE2\x82"), frame(CONTINUATION, b"")];
        assert_ends(&bytes, Some(b"ab"), 1007, ClosedBy::Server);
    });
}

#[test]
fn a_panic_in_on_fragment_gets_1011_and_what_follows_in_the_message_is_ignored() {
    within(LIMIT, || {
        assert_ends(&[frame(TEXT, b"panic")], None, 1011, ClosedBy::Application);
        let fragments = [frame(TEXT & !FIN, b"ab"), frame(CONTINUATION & !FIN, b"panic")];
        assert_ends(&fragments, Some(b"ab"), 1011, ClosedBy::Application);
        let late = [frame(TEXT & !FIN, b"panic"), frame(CONTINUATION, b"late")].concat();
        assert_ends(&[late], None, 1011, ClosedBy::Application);
    });
}

#[test]
fn a_client_that_vanishes_in_the_middle_of_a_message_is_told_of_once() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let (handler, told) = witness();
            let running = start(shard_count, |app| app.websocket("/", handler));
            let mut client = Raw::upgraded(running.local_addr(), "/");
            client.send([&header(BINARY, 1000)[..], &MASK].concat());
            let piece = Told::Piece(vec![0; 4], true, false);
            assert_eq!(told.recv().expect("a piece"), piece);
            drop(client);
            let Ok(Told::Closed(close)) = told.recv() else { panic!("on_close is called") };
            assert_eq!((close.code(), close.by()), (1006.into(), ClosedBy::Peer));
            drop(running.shutdown(Duration::from_secs(5)));
            assert!(told.recv().is_err(), "nothing comes after on_close");
        });
    }
}

#[test]
fn endpoints_that_want_messages_get_them_whole_beside_those_that_want_pieces() {
    within(LIMIT, || {
        let (echo, _closes) = witnessed_echo();
        let running =
            serve(2, |app| app.websocket("/pieces", Upload::new()).websocket("/whole", echo));
        let bytes = pattern(500_000);
        let mut whole = Client::connect(running.local_addr(), "/whole");
        let mut pieces = Client::connect(running.local_addr(), "/pieces");
        for _ in 0..3 {
            whole.send_bytes(bytes.clone());
            pieces.send_bytes(bytes.clone());
            assert_eq!(whole.bytes(), bytes);
            assert_eq!(pieces.text(), "500000 true true");
        }
    });
}
