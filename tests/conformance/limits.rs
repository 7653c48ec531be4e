//! Large messages, many fragments, many messages, and where it ends: Autobahn's families 9 and 10.

use std::thread;

use peregrine::testing::TestServer;
use peregrine::{Limits, RunningServer, Server};

use crate::common::{start, within};
use crate::echo::{self, MESSAGE_BYTES, PATHS};
use crate::raw::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, Raw, TEXT, close, frame, header};
use crate::table::{Case, LIMIT, case, run_in_memory, run_over_sockets};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// How many messages pass a connection one after another.
const MESSAGE_COUNT: usize = 1_000_000;

/// A text of this many bytes, its characters of all widths.
fn text(length: usize) -> Vec<u8> {
    let mut bytes = "aé€🦅 wide and narrow ".as_bytes().repeat(length / 28 + 1);
    bytes.truncate(length);
    while std::str::from_utf8(&bytes).is_err() {
        bytes.pop();
    }
    bytes.resize(length, b'.');
    bytes
}

fn binary(length: usize) -> Vec<u8> {
    (0..251u8).cycle().take(length).collect()
}

/// A frame whose mask is zero, so that making it is no work.
fn plain(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, payload.len() as u64);
    let mask = bytes.len() - 4;
    bytes[mask..].fill(0);
    bytes.extend(payload);
    bytes
}

/// A message in fragments of this size.
fn in_fragments(first: u8, payload: &[u8], fragment_bytes: usize) -> Vec<u8> {
    let count = payload.len().div_ceil(fragment_bytes);
    let mut stream = Vec::with_capacity(payload.len() + 14 * count);
    for (at, fragment) in payload.chunks(fragment_bytes).enumerate() {
        let opcode = if at == 0 { first & !FIN } else { CONTINUATION & !FIN };
        let fin = if at + 1 == count { FIN } else { 0 };
        stream.extend(plain(fin | opcode, fragment));
    }
    stream
}

/// The server's half of what was said on a new connection: to this stream, written in parts of so
/// many bytes, and a Close.
fn answer(server: &RunningServer, path: &str, mut stream: Vec<u8>, write_bytes: usize) -> Vec<u8> {
    let mut raw = Raw::upgraded(server.local_addr(), path);
    let mut writer = Raw::over(raw.socket.try_clone().expect("a descriptor"));
    stream.extend(close(1000, b""));
    let writing = thread::spawn(move || {
        stream.chunks(write_bytes).for_each(|bytes| writer.send(bytes));
    });
    let answer = raw.all();
    writing.join().expect("a writer");
    answer
}

/// An unmasked frame, as the server sends it.
fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, payload.len() as u64);
    bytes[1] &= 0x7F;
    bytes.truncate(bytes.len() - 4);
    bytes.extend(payload);
    bytes
}

fn assert_echoed(
    server: &RunningServer,
    payload: &[u8],
    first: u8,
    stream: &[u8],
    write_bytes: usize,
) {
    let expected = [unmasked(first, payload), unmasked(CLOSE, &1000u16.to_be_bytes())].concat();
    for path in PATHS {
        let answer = answer(server, path, stream.to_vec(), write_bytes);
        let told = (path, first, payload.len(), stream.len(), write_bytes);
        assert!(answer == expected, "{told:?}: {} bytes came back", answer.len());
    }
}

#[test]
fn large_messages_come_back_whole_and_in_fragments_of_any_size() {
    within(LIMIT, || {
        let server = start(1, echo::serve);
        for length in [64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB] {
            for (first, payload) in [(TEXT, text(length)), (BINARY, binary(length))] {
                for fragment_bytes in [64, KIB, 16 * KIB, 256 * KIB, 4 * MIB, length] {
                    // A header for every 64 bytes is work; a MiB shows it.
                    let is_too_many = length / fragment_bytes > 16_384;
                    if fragment_bytes <= length && !is_too_many {
                        let stream = in_fragments(first, &payload, fragment_bytes);
                        assert_echoed(&server, &payload, first, &stream, MIB);
                    }
                }
            }
        }
    });
}

#[test]
fn a_large_message_comes_back_however_it_is_chopped() {
    within(LIMIT, || {
        let server = start(1, echo::serve);
        for (first, payload) in [(TEXT, text(256 * KIB)), (BINARY, binary(256 * KIB))] {
            for write_bytes in [64, 128, 256, 512, KIB, 2 * KIB, 100_000] {
                let stream = plain(first, &payload);
                assert_echoed(&server, &payload, first, &stream, write_bytes);
            }
        }
    });
}

/// The answer is awaited every time.
#[test]
fn messages_come_back_one_by_one() {
    within(LIMIT, || {
        let server = start(1, echo::serve);
        for path in PATHS {
            let mut raw = Raw::upgraded(server.local_addr(), path);
            for length in [0, 16, 64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB] {
                let payload = text(length);
                let message = plain(TEXT, &payload);
                for _ in 0..100 {
                    raw.send(&message);
                    let answer = raw.frame().expect("a message");
                    assert!(answer.first == TEXT && answer.payload == payload, "{length} bytes");
                }
            }
        }
    });
}

#[test]
fn a_million_small_messages_come_back_in_order() {
    within(LIMIT, || {
        let server = start(2, echo::serve);
        for (path, count) in [(PATHS[0], MESSAGE_COUNT), (PATHS[1], MESSAGE_COUNT / 10)] {
            let (mut stream, mut expected) = (Vec::new(), Vec::new());
            for number in 0..count {
                let payload = &number.to_be_bytes()[8 - number % 9..];
                stream.extend(frame(BINARY, payload));
                expected.extend(unmasked(BINARY, payload));
            }
            expected.extend(unmasked(CLOSE, &1000u16.to_be_bytes()));
            let answer = answer(&server, path, stream, 256 * KIB);
            assert!(answer == expected, "{path}: {} bytes came back", answer.len());
        }
    });
}

#[test]
fn a_message_at_the_limit_is_taken_and_one_beyond_is_refused_on_a_header() {
    let limit = MESSAGE_BYTES as u64;
    let most = binary(MESSAGE_BYTES - 100);
    let begun = |name| case(name).sends(plain(BINARY ^ FIN, &most));
    let whole = [&most[..], &[7; 100]].concat();
    run_over_sockets(&[
        case("one byte more in a frame").sends(header(TEXT, limit + 1)).fails(1009),
        begun("at the limit in two").sends(frame(CONTINUATION, &[7; 100])).gets(BINARY, whole),
        begun("one byte more in two").sends(header(CONTINUATION, 101)).fails(1009),
        begun("far more in two").sends(header(CONTINUATION ^ FIN, 1 << 63)).fails(1009),
    ]);
}

/// An echo whose limits are small.
fn small() -> TestServer {
    let mut limits = Limits::default();
    (limits.max_message_bytes, limits.max_frame_bytes) = (300, 200);
    (limits.max_fragments, limits.max_empty_frames_per_second) = (3, 3);
    let builder = echo::serve(Server::builder()).limits(limits);
    TestServer::new(builder).expect("a right server")
}

/// A message that begins so, and ends later.
fn begun(name: &str, length: usize) -> Case {
    case(name).sends(frame(TEXT ^ FIN, &vec![b'x'; length]))
}

fn more(case: Case, length: usize) -> Case {
    case.sends(frame(CONTINUATION ^ FIN, &vec![b'x'; length]))
}

fn pinged(case: Case) -> Case {
    case.sends(frame(PING, b"")).gets(PONG, "")
}

#[test]
fn limits_count_what_they_say_wherever_the_input_is_cut() {
    let next = header(CONTINUATION, 1);
    let three = |name| more(more(begun(name, 1), 1), 1);
    let three_empty = |name| more(more(begun(name, 0), 0), 0);
    let three_pings = |name| pinged(pinged(pinged(case(name))));
    let cases = [
        case("a frame at the limit").echoes(TEXT, &[b'x'; 200]),
        case("a frame beyond").sends(header(TEXT, 201)).fails(1009).unheard([0; 9]),
        more(begun("a message at the limit", 200), 100),
        begun("a message beyond", 200).sends(header(CONTINUATION, 101)).fails(1009),
        three("three fragments"),
        three("a fourth fragment").sends(&next).fails(1008).unheard([0; 9]),
        three_empty("three empty fragments"),
        pinged(three_empty("and a ping")).fails(1008),
        three_pings("three pings"),
        pinged(three_pings("a fourth ping")).fails(1008),
        three_pings("a pong after pings").sends(frame(PONG, b"")).fails(1008),
        three_pings("messages after pings").echoes(TEXT, b"").echoes(TEXT, b""),
    ];
    run_in_memory(small, &cases);
}
