//! One client: what it was told to do, as bytes into its pipe; what came out, as [`Received`].
//!
//! Its WebSocket is tungstenite's: a second opinion on all that the server sends.
//!
//! Knows the client's half of HTTP and RFC 6455, and one end of a pipe. Must not know the server's
//! protocol, handlers or phases.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};

use tungstenite::error::{Error, ProtocolError};
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};

use super::request::{Answer, find, read_answer};
use crate::hub::ConnectionId;
use crate::message::{CloseCode, Message};
use crate::shard::ClientEnd;

/// How much a client reads at once, in bytes.
const READ_BYTES: usize = 16 << 10;

/// What a client got.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Received {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// The answer to [`ping`](super::TestServer::ping), with the ping's payload.
    Pong(Vec<u8>),
    /// The end, as a browser reports it: the server's Close frame, code 1005 if that carries none;
    /// or code 1006, because the connection ended without one. Nothing comes after it.
    Close {
        /// The close code.
        code: CloseCode,
        /// The reason, often empty.
        reason: String,
    },
}

/// A client and its end of the connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) end: ClientEnd,
    /// `None` if the server refused the connection before it had a slot.
    pub(super) id: Option<ConnectionId>,
    pub(super) received: VecDeque<Received>,
    /// What came before the upgrade, or without one.
    pub(super) bytes: Vec<u8>,
    pub(super) ping_count: usize,
    /// What was sent by hand and has not fitted into the pipe.
    unsent: VecDeque<u8>,
    stage: Stage,
    has_ended: bool,
}

#[derive(Debug)]
enum Stage {
    /// Bytes are bytes.
    Raw,
    /// A request was sent, the answer is awaited.
    Asking,
    Open(Box<WebSocketContext>),
}

impl Client {
    pub(super) fn new(end: ClientEnd, id: Option<ConnectionId>) -> Self {
        Self {
            end,
            id,
            received: VecDeque::new(),
            bytes: Vec::new(),
            ping_count: 0,
            unsent: VecDeque::new(),
            stage: Stage::Raw,
            has_ended: false,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Sends a request for an upgrade.
    pub(super) fn ask(&mut self, request: &str) {
        self.stage = Stage::Asking;
        self.send_bytes(request.as_bytes());
    }

    /// The answer to the request, once it is whole. If it grants the upgrade, frames flow.
    pub(super) fn answer(&mut self) -> Option<Answer> {
        let (answer, head_bytes) = read_answer(&self.bytes)?;
        if answer.status == 101 {
            let rest = self.bytes.split_off(head_bytes);
            self.bytes.clear();
            let config = WebSocketConfig::default()
                .read_buffer_size(READ_BYTES)
                .write_buffer_size(0)
                .max_message_size(None)
                .max_frame_size(None);
            let context = WebSocketContext::from_partially_read(rest, Role::Client, Some(config));
            self.stage = Stage::Open(Box::new(context));
            return Some(answer);
        }
        // A refusal ends with the connection, a page with its length.
        let body_bytes = match answer.status {
            204 | 304 => Some(0),
            _ => find(&answer.headers, "Content-Length").and_then(|text| text.parse().ok()),
        };
        let is_whole = body_bytes.is_some_and(|bytes| self.bytes.len() - head_bytes >= bytes);
        (is_whole || self.has_ended).then_some(answer)
    }

    // Commands. What does not fit into the pipe waits on the client's side.

    pub(super) fn send_bytes(&mut self, bytes: &[u8]) {
        self.unsent.extend(bytes);
    }

    pub(super) fn send(&mut self, message: Message<'_>) {
        self.write(match message {
            Message::Text(text) => tungstenite::Message::text(text),
            Message::Binary(bytes) => tungstenite::Message::binary(bytes.to_vec()),
        });
    }

    pub(super) fn send_fragment(&mut self, fragment: Message<'_>, place: Place) {
        let opcode = match (place.is_first, fragment) {
            (false, _) => Data::Continue,
            (true, Message::Text(_)) => Data::Text,
            (true, Message::Binary(_)) => Data::Binary,
        };
        let payload = fragment.as_bytes().to_vec();
        let frame = Frame::message(payload, OpCode::Data(opcode), place.is_last);
        self.write(tungstenite::Message::Frame(frame));
    }

    pub(super) fn ping(&mut self, payload: &[u8]) {
        self.write(tungstenite::Message::Ping(payload.to_vec().into()));
    }

    pub(super) fn close(&mut self, code: CloseCode, reason: &str) {
        let frame = CloseFrame { code: u16::from(code).into(), reason: reason.into() };
        self.write(tungstenite::Message::Close(Some(frame)));
    }

    /// An error is the end of the connection, which reading will report, or a full pipe, which
    /// [`exchange`](Self::exchange) will find empty.
    fn write(&mut self, message: tungstenite::Message) {
        match &mut self.stage {
            Stage::Open(context) => drop(context.write(&mut self.end, message)),
            Stage::Raw | Stage::Asking => panic!("this client has not upgraded: it sends bytes"),
        }
    }

    /// Ends the connection on the client's side, without a word.
    pub(super) fn drop_connection(&mut self) {
        self.end.close();
        self.has_ended = true;
    }

    // To do.

    /// Writes what waits, and reads what has come, as far as it reads at all.
    pub(super) fn exchange(&mut self) {
        if self.has_ended {
            return;
        }
        self.write_unsent();
        if let Stage::Open(context) = &mut self.stage {
            // As of `write`.
            let _ = context.flush(&mut self.end);
        }
        match self.stage {
            Stage::Open(_) => self.read_messages(),
            Stage::Raw | Stage::Asking => self.read_bytes(),
        }
    }

    fn write_unsent(&mut self) {
        while !self.unsent.is_empty() {
            match self.end.write(self.unsent.make_contiguous()) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // This side has closed.
                Err(_) => self.unsent.clear(),
            }
        }
    }

    fn read_bytes(&mut self) {
        let mut buffer = [0; READ_BYTES];
        loop {
            match self.end.read(&mut buffer) {
                Ok(0) => return self.drop_connection(),
                Ok(read) => self.bytes.extend_from_slice(&buffer[..read]),
                Err(_) => return,
            }
        }
    }

    fn read_messages(&mut self) {
        while let Stage::Open(context) = &mut self.stage {
            let received = match context.read(&mut self.end) {
                Ok(tungstenite::Message::Text(text)) => Received::Text(text.as_str().to_owned()),
                Ok(tungstenite::Message::Binary(bytes)) => Received::Binary(bytes.into()),
                Ok(tungstenite::Message::Pong(payload)) => Received::Pong(payload.into()),
                Ok(tungstenite::Message::Ping(_)) => {
                    self.ping_count += 1;
                    continue;
                }
                Ok(tungstenite::Message::Close(frame)) => close_of(frame),
                Ok(tungstenite::Message::Frame(_)) => continue,
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return,
                Err(
                    Error::ConnectionClosed
                    | Error::AlreadyClosed
                    | Error::Io(_)
                    | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake),
                ) => {
                    self.drop_connection();
                    Received::Close { code: CloseCode::ABNORMAL, reason: String::new() }
                }
                Err(error) => panic!("the server does not speak WebSocket: {error}"),
            };
            if !matches!(self.received.back(), Some(Received::Close { .. })) {
                self.received.push_back(received);
            }
            if self.has_ended {
                return;
            }
        }
    }
}

/// Where in its message a fragment stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) is_first: bool,
    pub(super) is_last: bool,
}

fn close_of(frame: Option<CloseFrame>) -> Received {
    match frame {
        Some(frame) => Received::Close {
            code: u16::from(frame.code).into(),
            reason: frame.reason.as_str().to_owned(),
        },
        None => Received::Close { code: CloseCode::NO_STATUS, reason: String::new() },
    }
}
