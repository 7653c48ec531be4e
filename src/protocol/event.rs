//! [`Event`]: what the peer's bytes meant. [`Step`]: how far some of them have led.
//!
//! Knows messages, pieces of them, and what comes out of the [engine](super::engine). Must not know
//! frames, nor who takes the bytes.

use bytes::Bytes;
use tungstenite::Utf8Bytes;

use super::engine::Output;
use super::utf8::Character;
use crate::error::Violation;
use crate::message::{Chunk, CloseCode, Message};

/// How far the bytes fed have led.
#[derive(Debug)]
pub(super) enum Step<'b> {
    Event(Event<'b>),
    /// A frame that carries no data: a ping (already answered), a pong, an empty fragment.
    Idle,
    /// A fragment is whole, its message is not.
    Fragment,
    /// All input is used up.
    Starved,
}

impl From<Output> for Step<'_> {
    fn from(output: Output) -> Self {
        Self::Event(match output {
            Output::Text(text) => Event::Message(Received::Text(text)),
            Output::Binary(bytes) => Event::Message(Received::Binary(bytes)),
            Output::Close(None) => Event::Close(CloseCode::NO_STATUS, String::new()),
            Output::Close(Some((code, reason))) => Event::Close(code, reason.as_str().to_owned()),
            Output::Idle => return Self::Idle,
            Output::Fragment => return Self::Fragment,
            Output::Starved => return Self::Starved,
        })
    }
}

/// What the peer's bytes meant.
#[derive(Debug)]
pub(crate) enum Event<'b> {
    Message(Received<'b>),
    Piece(Piece<'b>),
    /// The peer's Close frame (section 5.5.1).
    Close(CloseCode, String),
    Violation(Violation),
}

/// A piece of a message.
#[derive(Debug)]
pub(crate) struct Piece<'b> {
    pub(super) received: Received<'b>,
    pub(super) is_first: bool,
    pub(super) is_last: bool,
}

impl Piece<'_> {
    #[inline]
    pub(crate) fn as_chunk(&self) -> Chunk<'_> {
        Chunk::new(self.received.as_message(), self.is_first, self.is_last)
    }
}

/// A received message, or a piece of one: borrowed from the input, or put together.
#[derive(Debug)]
pub(crate) enum Received<'b> {
    Whole(Message<'b>),
    Text(Utf8Bytes),
    Binary(Bytes),
    Character(Character),
}

impl Received<'_> {
    #[inline]
    pub(crate) fn as_message(&self) -> Message<'_> {
        match self {
            Self::Whole(message) => *message,
            Self::Text(text) => Message::Text(text),
            Self::Binary(bytes) => Message::Binary(bytes),
            Self::Character(character) => Message::Text(character.as_str()),
        }
    }

    /// What it lies in, if that is not the input.
    pub(crate) fn memory(&self) -> Option<&Bytes> {
        match self {
            Self::Whole(_) | Self::Character(_) => None,
            Self::Text(text) => Some(text.as_ref()),
            Self::Binary(bytes) => Some(bytes),
        }
    }
}
