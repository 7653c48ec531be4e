//! What a connection receives: compared with what must come, as it lies, a whole batch at once.
//! Only what is not that (a ping, a Close frame, a fragment, a wrong message) is looked at closely.

use std::fmt;

use crate::script::Script;

/// How much of an unexpected message is shown.
const SHOWN_BYTES: usize = 40;

/// What has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// So many messages, all as they must be.
    Messages(u64),
    /// A message that nobody asked for.
    Surplus(Message),
    /// A message that is not what was sent.
    Wrong(String),
    /// What RFC 6455 does not allow.
    Malformed(String),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

/// The receiving side of a connection.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    /// The number of the next message.
    pub(crate) number: u64,
    /// How much of its frame has come, all of it as expected.
    matched_bytes: usize,
    /// Reads what is not as expected.
    decoder: Option<Box<Decoder>>,
}

impl Incoming {
    pub(crate) fn starting_at(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    /// Takes from the front of `bytes` up to the end of something; None: all was taken. `end` is
    /// the number of the first message that has not been sent.
    pub(crate) fn take(&mut self, bytes: &mut &[u8], script: &Script, end: u64) -> Option<Item> {
        while !bytes.is_empty() {
            if self.decoder.is_none() {
                let expected = script.to_return(self.number, self.matched_bytes, end - self.number);
                let length = expected.len().min(bytes.len());
                if length > 0 && bytes[..length] == expected[..length] {
                    *bytes = &bytes[length..];
                    let (count, rest) = script.returned_messages(self.matched_bytes + length);
                    self.matched_bytes = rest;
                    self.number += count;
                    if count > 0 {
                        return Some(Item::Messages(count));
                    }
                    continue;
                }
            }
            let item = self.take_closely(bytes, script, end);
            if item.is_some() {
                return item;
            }
        }
        None
    }

    #[cold]
    fn take_closely(&mut self, bytes: &mut &[u8], script: &Script, end: u64) -> Option<Item> {
        let expected = (self.number < end).then_some(Expected {
            first_byte: script.first_byte,
            payload: script.payload(self.number),
        });
        let mut decoder = self.decoder.take().unwrap_or_default();
        // What has matched of this frame is what has come.
        let mut before = &script.to_return(self.number, 0, 1)[..self.matched_bytes];
        self.matched_bytes = 0;
        let mut item = None;
        while item.is_none() && !before.is_empty() {
            item = decoder.take(&mut before, expected);
        }
        if item.is_none() {
            item = decoder.take(bytes, expected);
        }
        if let Some(Item::Messages(_)) = item {
            self.number += 1;
        }
        if item.is_none() || decoder.is_within_message() {
            self.decoder = Some(decoder);
        }
        item
    }
}

/// The message that must come next.
#[derive(Clone, Copy)]
struct Expected<'a> {
    first_byte: u8,
    payload: &'a [u8],
}

/// A data message, or what has come of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    opcode: u8,
    read_bytes: usize,
    /// Its beginning.
    shown: Vec<u8>,
}

/// The header of the frame that is being read, and how much of its payload is still to come.
#[derive(Clone, Copy, Debug)]
struct Frame {
    first_byte: u8,
    rest_bytes: u64,
}

/// Reads any frames, in pieces of any size.
#[derive(Debug, Default)]
struct Decoder {
    header: Vec<u8>,
    frame: Option<Frame>,
    control: Vec<u8>,
    message: Option<Message>,
}

impl Decoder {
    fn is_within_message(&self) -> bool {
        self.message.is_some()
    }

    fn take(&mut self, bytes: &mut &[u8], expected: Option<Expected<'_>>) -> Option<Item> {
        let mut frame = match self.frame {
            Some(frame) => frame,
            None => match self.take_header(bytes) {
                Ok(frame) => frame?,
                Err(what) => return Some(Item::Malformed(what)),
            },
        };
        let length = usize::try_from(frame.rest_bytes).unwrap_or(usize::MAX).min(bytes.len());
        let (payload, rest) = bytes.split_at(length);
        *bytes = rest;
        frame.rest_bytes -= length as u64;
        let is_whole = frame.rest_bytes == 0;
        self.frame = (!is_whole).then_some(frame);
        if frame.first_byte & 0x08 != 0 {
            self.control.extend(payload);
            return is_whole.then(|| self.control_frame(frame.first_byte & 0x0F));
        }
        let is_end = is_whole && frame.first_byte & 0x80 != 0;
        self.take_payload(payload, is_end, expected)
    }

    /// None: not all of it has come.
    fn take_header(&mut self, bytes: &mut &[u8]) -> Result<Option<Frame>, String> {
        loop {
            let needed = match self.header[..] {
                [] | [_] => 2,
                [_, 126, ..] => 4,
                [_, 127, ..] => 10,
                _ => 2,
            };
            if self.header.len() == needed {
                break;
            }
            let Some((byte, rest)) = bytes.split_first() else { return Ok(None) };
            self.header.push(*byte);
            *bytes = rest;
            if self.header.len() == 2 {
                self.check_header(self.header[0], self.header[1])?;
            }
        }
        let rest_bytes = match self.header[2..] {
            [] => u64::from(self.header[1]),
            ref length => length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        let first_byte = self.header[0];
        self.header.clear();
        if let 1 | 2 = first_byte & 0x0F {
            let opcode = first_byte & 0x0F;
            self.message = Some(Message { opcode, read_bytes: 0, shown: Vec::new() });
        }
        let frame = Frame { first_byte, rest_bytes };
        self.frame = Some(frame);
        Ok(Some(frame))
    }

    /// RFC 6455 sections 5.1, 5.2, 5.4 and 5.5.
    fn check_header(&self, first: u8, second: u8) -> Result<(), String> {
        let opcode = first & 0x0F;
        let is_within = self.message.is_some();
        let wrong = if first & 0x70 != 0 {
            "a reserved bit is set"
        } else if second & 0x80 != 0 {
            "a server's frame is masked"
        } else if !matches!(opcode, 0..=2 | 8..=10) {
            "an unknown opcode"
        } else if opcode >= 8 && (first & 0x80 == 0 || second > 125) {
            "a control frame is fragmented or too long"
        } else if opcode == 0 && !is_within {
            "a continuation of nothing"
        } else if matches!(opcode, 1 | 2) && is_within {
            "a message begins within another"
        } else {
            return Ok(());
        };
        Err(format!("{wrong}: a frame begins with {first:#04x} {second:#04x}"))
    }

    fn control_frame(&mut self, opcode: u8) -> Item {
        let payload = std::mem::take(&mut self.control);
        match (opcode, &payload[..]) {
            (8, []) => Item::Close(None),
            (8, [high, low, ..]) => Item::Close(Some(u16::from_be_bytes([*high, *low]))),
            (8, _) => Item::Malformed("a Close frame has half a code".to_owned()),
            (9, _) => Item::Ping(payload),
            _ => Item::Pong,
        }
    }

    fn take_payload(
        &mut self,
        payload: &[u8],
        is_end: bool,
        expected: Option<Expected<'_>>,
    ) -> Option<Item> {
        let message = self.message.as_mut()?;
        let begin = message.read_bytes;
        let room = SHOWN_BYTES - message.shown.len();
        message.shown.extend(&payload[..room.min(payload.len())]);
        message.read_bytes += payload.len();
        let Some(expected) = expected else {
            if !is_end {
                return None;
            }
            let message = self.message.take()?;
            return Some(Item::Surplus(message));
        };
        let end = message.read_bytes;
        let wanted = expected.payload.get(begin..end);
        let is_kind = message.opcode == expected.first_byte & 0x0F;
        let is_length = end == expected.payload.len() || !is_end;
        if is_kind && is_length && wanted == Some(payload) {
            if is_end {
                self.message = None;
            }
            return is_end.then_some(Item::Messages(1));
        }
        let wrong = match wanted {
            _ if !is_kind => "it is of the other kind".to_owned(),
            Some(wanted) if wanted != payload => {
                let at = wanted.iter().zip(payload).position(|(a, b)| a != b).unwrap_or_default();
                let (sent, came) = (wanted[at], payload[at]);
                format!("byte {} is {came:#04x}, sent was {sent:#04x}", begin + at)
            }
            _ => format!("{} bytes were sent", expected.payload.len()),
        };
        Some(Item::Wrong(format!("{wrong}: {message}")))
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.opcode == 1 { "text" } else { "binary" };
        let (bytes, shown) = (self.read_bytes, self.shown.escape_ascii());
        write!(f, "{kind} of {bytes} bytes came, \"{shown}\"")
    }
}

#[cfg(test)]
mod tests;
