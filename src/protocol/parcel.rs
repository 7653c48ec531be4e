//! [`Parcel`]: a message that is ready to be sent. [`SharedParcel`]: the same for many connections,
//! with room for a second form, which is made once for the whole server. [`Encoding`]: which form a
//! connection takes.
//!
//! Knows the forms of one message, and how each is made. Must not know connections, nor how a
//! parcel reaches one.

#[cfg(test)]
mod shortened;

use std::sync::OnceLock;

use bytes::Bytes;

#[cfg(test)]
pub(crate) use self::shortened::Shortened;
use super::frame::{self, Header};
use crate::message::Message;

/// Which form of a message a connection takes. This is settled before the connection is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Frames without extension bits.
    #[default]
    Plain,
    /// A form that only tests know.
    #[cfg(test)]
    Shortened,
}

impl Encoding {
    /// Whether the connection takes the plain form only.
    #[inline]
    pub(crate) fn is_plain(self) -> bool {
        matches!(self, Self::Plain)
    }

    /// Encodes a message as one whole frame. Returns `None` if its plain form is to be sent: a
    /// second form is made only if it is shorter, so that whatever has a limit for the plain form
    /// has one for both.
    #[inline]
    pub(crate) fn encode(self, opcode: u8, payload: &[u8]) -> Option<Bytes> {
        let encoded: Option<Bytes> = match self {
            Self::Plain => None,
            #[cfg(test)]
            Self::Shortened => Some(Shortened::encode(opcode, payload)),
        };
        debug_assert!(!frame::is_control(opcode), "control frames have one form");
        encoded.filter(|encoded| encoded.len() < frame::frame_bytes(payload.len()))
    }
}

/// One message as one whole, final, unmasked frame without extension bits: its plain form.
#[derive(Clone, Debug)]
pub(crate) struct Parcel(Bytes);

impl Parcel {
    pub(crate) fn new(message: Message<'_>) -> Self {
        Self(frame::encode_whole(message))
    }

    /// A message that is encoded already.
    #[inline]
    pub(crate) fn from_frame(frame: Bytes) -> Self {
        let header = Header::parse(&frame);
        debug_assert!(
            header.is_some_and(|header| header.is_final() && !header.is_control()),
            "a whole message: {header:?}"
        );
        Self(frame)
    }

    /// The plain form.
    #[inline]
    pub(crate) fn frame(&self) -> &Bytes {
        &self.0
    }

    /// The plain form, and nothing that shares it.
    #[cfg(test)]
    pub(crate) fn into_frame(self) -> Bytes {
        self.0
    }

    /// How long the plain form is, in bytes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The opcode: text or binary.
    pub(crate) fn opcode(&self) -> u8 {
        self.0.first().map_or(frame::BINARY, |first| frame::opcode(*first))
    }

    /// What the message says.
    pub(crate) fn payload(&self) -> &[u8] {
        let header_bytes = self.0.get(1).map_or(0, |second| Header::length(*second));
        self.0.get(header_bytes..).unwrap_or_default()
    }

    /// The message in another encoding; `None` if its plain form is to be sent.
    #[inline]
    pub(crate) fn encode(&self, encoding: Encoding) -> Option<Bytes> {
        encoding.encode(self.opcode(), self.payload())
    }
}

/// A parcel for many connections. All shards hold the same one.
#[derive(Debug)]
pub(crate) struct SharedParcel {
    plain: Parcel,
    /// The second form, once a shard has needed it; `None` in it if the plain form is to be sent.
    twin: OnceLock<Option<Bytes>>,
}

impl From<Parcel> for SharedParcel {
    fn from(plain: Parcel) -> Self {
        Self { plain, twin: OnceLock::new() }
    }
}

impl SharedParcel {
    #[inline]
    pub(crate) fn plain(&self) -> &Parcel {
        &self.plain
    }

    /// The message in another encoding; `None` if its plain form is to be sent. The first shard
    /// that asks makes it; one that asks meanwhile waits for that, which takes less time than to
    /// make it again.
    #[inline]
    pub(crate) fn twin(&self, encoding: Encoding) -> Option<&Bytes> {
        if encoding.is_plain() {
            return None;
        }
        self.twin.get_or_init(|| self.plain.encode(encoding)).as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lengths at which a header grows.
    const LENGTHS: [usize; 6] = [0, 125, 126, 65_535, 65_536, 100_000];

    #[test]
    fn opcode_and_payload_are_read_from_the_frame() {
        for length in LENGTHS {
            let text = "x".repeat(length);
            for message in [Message::Text(&text), Message::Binary(text.as_bytes())] {
                let parcel = Parcel::new(message);
                let opcode = if message.is_text() { frame::TEXT } else { frame::BINARY };
                assert_eq!((parcel.opcode(), parcel.payload()), (opcode, message.as_bytes()));
                assert_eq!(parcel.len(), frame::encoded_bytes(message));
                assert_eq!(parcel.encode(Encoding::Plain), None);
            }
        }
    }

    #[test]
    fn the_second_form_says_the_same_and_is_shorter_or_is_not_made() {
        let random: Vec<u8> = (0..200).collect();
        let payloads = LENGTHS.iter().map(|&length| vec![7; length]);
        for payload in payloads.chain([random, b"short".to_vec()]) {
            let parcel = Parcel::new(Message::Binary(&payload));
            match parcel.encode(Encoding::Shortened) {
                Some(form) => {
                    assert!(form.len() < parcel.len());
                    assert_eq!(Shortened::decode(&form), Some((frame::BINARY, payload)));
                }
                None => assert!(payload.len() < 8 || payload.last() != payload.first()),
            }
        }
    }

    #[test]
    fn threads_that_ask_at_once_get_one_form_that_was_made_once() {
        let parcel = SharedParcel::from(Parcel::new(Message::Text(&"x".repeat(50_000))));
        let ask = || {
            let before = Shortened::count();
            let form = parcel.twin(Encoding::Shortened).expect("it is shorter");
            (form.as_ptr().addr(), Shortened::count() - before)
        };
        let asked: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
        });
        assert_eq!(asked.iter().map(|(_, count)| count).sum::<usize>(), 1);
        assert!(asked.iter().all(|(form, _)| *form == asked[0].0));
    }

    #[test]
    fn a_plain_connection_has_nothing_made() {
        let parcel = SharedParcel::from(Parcel::new(Message::Text(&"x".repeat(1000))));
        assert_eq!(parcel.twin(Encoding::Plain), None);
        assert_eq!(parcel.twin.get(), None);
    }
}
