//! Whatever the server encodes, tungstenite reads as a client: the same messages, in frames that
//! are not masked, their lengths in the shortest form.

use std::io::Cursor;

use proptest::prelude::*;
use tungstenite::Message as Theirs;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::{Role, WebSocketContext};

use super::reference::Memory;
use super::{Limits, origin, whole};
use crate::cases;
use crate::message::{CloseCode, Message};
use crate::protocol::Protocol;
use crate::protocol::frame::{self, Fragment};

/// What is sent, one after another.
#[derive(Clone, Debug)]
enum Sent {
    Text(String, Way),
    Binary(Filler, Way),
    Pieces(Vec<String>),
    BinaryPieces(Vec<Filler>),
    Ping,
    /// The answer to a ping.
    Pong(Vec<u8>),
}

/// So many bytes.
#[derive(Clone, Copy, Debug)]
struct Filler(usize);

impl Filler {
    fn bytes(self) -> Vec<u8> {
        (0..=250).cycle().take(self.0).collect()
    }
}

/// The ways to encode a message.
#[derive(Clone, Copy, Debug)]
enum Way {
    Append,
    Encode,
    Whole,
}

impl Way {
    fn put(self, out: &mut Vec<u8>, message: Message<'_>) {
        let before = out.len();
        match self {
            Self::Append => frame::append(out, message),
            Self::Encode => frame::encode(out, message),
            Self::Whole => out.extend(frame::encode_whole(message)),
        }
        assert_eq!(out.len() - before, frame::encoded_bytes(message));
    }
}

impl Sent {
    /// Encodes it; tells what the client should see.
    fn put(&self, out: &mut Vec<u8>) -> Theirs {
        match self {
            Self::Text(text, way) => {
                way.put(out, Message::Text(text));
                Theirs::text(text.as_str())
            }
            Self::Binary(filler, way) => {
                way.put(out, Message::Binary(&filler.bytes()));
                Theirs::binary(filler.bytes())
            }
            Self::Pieces(pieces) => {
                put_pieces(out, pieces.iter().map(|piece| Message::Text(piece)));
                Theirs::text(pieces.concat())
            }
            Self::BinaryPieces(pieces) => {
                let pieces: Vec<_> = pieces.iter().map(|piece| piece.bytes()).collect();
                put_pieces(out, pieces.iter().map(|piece| Message::Binary(piece)));
                Theirs::binary(pieces.concat())
            }
            Self::Ping => {
                out.extend(frame::PING);
                Theirs::Ping(Vec::new().into())
            }
            Self::Pong(payload) => {
                let mut ping = whole(0x9, payload);
                let (mut input, limits) = (ping.as_mut_slice(), Limits::default());
                let event = Protocol::default().receive(&mut input, out, &limits, origin());
                assert!(event.is_none(), "a ping is answered: {event:?}");
                Theirs::Pong(payload.clone().into())
            }
        }
    }
}

fn put_pieces<'m>(out: &mut Vec<u8>, pieces: impl ExactSizeIterator<Item = Message<'m>>) {
    let last = pieces.len() - 1;
    for (at, piece) in pieces.enumerate() {
        let fragment = Fragment { is_first: at == 0, is_last: at == last };
        let frame = frame::encode_fragment(piece, fragment);
        assert_eq!(frame::ends_message(&frame), at == last);
        out.extend(frame);
        if at < last {
            // Control frames pass.
            out.extend(frame::PING);
        }
    }
}

fn sent() -> impl Strategy<Value = Sent> {
    let way = || prop_oneof![Just(Way::Append), Just(Way::Encode), Just(Way::Whole)];
    let text = || "\\PC{0,50}";
    let filler = || {
        let lengths = prop_oneof![
            4 => 0..300usize,
            2 => 124..128usize,
            1 => 65_534..65_538usize,
            1 => Just(200_000),
        ];
        lengths.prop_map(Filler)
    };
    prop_oneof![
        (text(), way()).prop_map(|(text, way)| Sent::Text(text, way)),
        (filler(), way()).prop_map(|(filler, way)| Sent::Binary(filler, way)),
        (filler(), way()).prop_map(|(length, way)| Sent::Text("x".repeat(length.0), way)),
        prop::collection::vec(text(), 1..4).prop_map(Sent::Pieces),
        prop::collection::vec(filler(), 1..4).prop_map(Sent::BinaryPieces),
        Just(Sent::Ping),
        prop::collection::vec(any::<u8>(), 0..=125usize).prop_map(Sent::Pong),
    ]
}

/// Every frame is unmasked, and its header as short as can be (RFC 6455 sections 5.1, 5.2).
fn assert_plain(mut frames: &[u8]) {
    while !frames.is_empty() {
        let mut cursor = Cursor::new(frames);
        let parsed = FrameHeader::parse(&mut cursor).expect("a header");
        let (header, length) = parsed.expect("a whole header");
        let header_bytes = match length {
            0..=125 => 2,
            126..=0xFFFF => 4,
            _ => 10,
        };
        assert_eq!((header.mask, cursor.position()), (None, header_bytes));
        assert!(!header.rsv1 && !header.rsv2 && !header.rsv3);
        frames = &frames[usize::try_from(header_bytes + length).expect("a short frame")..];
    }
}

#[test]
fn a_client_reads_what_the_server_encodes() {
    let close = (prop::sample::select(&[1000u16, 1001, 1011, 3000, 4999]), "[a-z é]{0,60}");
    let all = (prop::collection::vec(sent(), 0..8), close);
    cases::check(96, all, |(all, (code, reason))| {
        let (mut out, mut expected) = (Vec::new(), Vec::new());
        for sent in &all {
            let message = sent.put(&mut out);
            let ping_count = match sent {
                Sent::Pieces(pieces) => pieces.len() - 1,
                Sent::BinaryPieces(pieces) => pieces.len() - 1,
                _ => 0,
            };
            expected.extend((0..ping_count).map(|_| Theirs::Ping(Vec::new().into())));
            expected.push(message);
        }
        Protocol::default().close(CloseCode::from(code), &reason, &mut out, &Limits::default());
        assert_plain(&out);

        let mut context = WebSocketContext::new(Role::Client, None);
        let mut memory = Memory::new(out);
        for expected in expected {
            assert_eq!(context.read(&mut memory).expect("a message"), expected);
        }
        match context.read(&mut memory) {
            Ok(Theirs::Close(Some(close))) => {
                assert_eq!((u16::from(close.code), close.reason.as_str()), (code, reason.as_str()));
            }
            other => panic!("a Close was sent: {other:?}"),
        }
    });
}

#[test]
fn the_codes_that_may_be_sent_are_those_that_tungstenite_lets_a_peer_send() {
    for code in 0..=u16::MAX {
        let is_allowed = tungstenite::protocol::frame::coding::CloseCode::from(code).is_allowed();
        assert_eq!(CloseCode::from(code).is_sendable(), is_allowed, "{code}");
    }
}
