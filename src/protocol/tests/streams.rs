//! Streams of frames for tests and fuzz targets, valid ones and hostile ones. Every choice is made
//! by bytes given from outside: a random generator's, or a fuzzer's.

use crate::config::Limits;

const FIN: u8 = 0x80;
pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

/// How a frame's length is written: only the shortest form is legal, and none is ever refused.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LengthForm {
    Shortest,
    TwoBytes,
    EightBytes,
}

/// A client's frame, its payload masked with `key`.
pub(crate) fn frame(first: u8, payload: &[u8], key: [u8; 4], form: LengthForm) -> Vec<u8> {
    let mut out = vec![first];
    put_length(&mut out, 0x80, payload.len() as u64, form);
    out.extend(key);
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// Appends the second byte of a header, with its mask bit, and the longer lengths.
fn put_length(out: &mut Vec<u8>, mask_bit: u8, length: u64, form: LengthForm) {
    let form = match (form, length) {
        (LengthForm::Shortest, 126..=0xFFFF) => LengthForm::TwoBytes,
        (LengthForm::Shortest | LengthForm::TwoBytes, 0x1_0000..) => LengthForm::EightBytes,
        (form, _) => form,
    };
    let bytes = length.to_be_bytes();
    match form {
        LengthForm::Shortest => out.push(mask_bit | bytes[7]),
        LengthForm::TwoBytes => out.extend([mask_bit | 126, bytes[6], bytes[7]]),
        LengthForm::EightBytes => {
            out.push(mask_bit | 127);
            out.extend(bytes);
        }
    }
}

/// Choices made by bytes from outside; all zeros once they are used up.
#[derive(Debug)]
pub(crate) struct Choices<'d>(pub(crate) &'d [u8]);

impl Choices<'_> {
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let wide = u16::from_be_bytes([if end > 256 { self.byte() } else { 0 }, self.byte()]);
        usize::from(wide) % end
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }

    fn key(&mut self) -> [u8; 4] {
        // A mask of zeros is legal, and lets a fuzzer see what it writes.
        if self.one_in(4) { [0; 4] } else { self.bytes() }
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }
}

/// Limits chosen among a few: frames larger and smaller than messages, and both ample. How many
/// fragments and idle frames there may be is not limited, for the reference cannot count them; and
/// where a frame may be shorter than a control frame, a message may be no longer, for the reference
/// has one limit for all frames.
pub(crate) fn limits(choices: &mut Choices<'_>) -> Limits {
    ample([(1 << 20, 1 << 20), (64, 64), (300, 130), (130, 300)][choices.below(4)])
}

/// Limits of a message and a frame, in bytes, and no others that a stream could reach.
pub(crate) fn ample((max_message_bytes, max_frame_bytes): (usize, usize)) -> Limits {
    Limits {
        max_message_bytes,
        max_frame_bytes,
        max_fragments: u32::MAX,
        max_empty_frames_per_second: u32::MAX,
        ..Limits::default()
    }
}

/// Where to cut a stream of this length: sorted, possibly in the same place twice.
pub(crate) fn cuts(choices: &mut Choices<'_>, length: usize) -> Vec<usize> {
    let count = choices.below(8);
    let mut cuts: Vec<usize> = (0..count).map(|_| choices.below(length + 1)).collect();
    cuts.sort_unstable();
    cuts
}

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manners {
    /// Every frame is legal, and none is a Close: the stream is read to its end.
    Polite,
    /// Anything may come.
    Hostile,
}

/// A stream of at most `count_max` items, each a few frames; fewer if the choices are used up.
pub(crate) fn stream(
    choices: &mut Choices<'_>,
    limits: &Limits,
    manners: Manners,
    count_max: usize,
) -> Vec<u8> {
    let mut stream = Stream { choices, limits, manners, out: Vec::new() };
    for _ in 0..count_max {
        if stream.choices.0.is_empty() {
            break;
        }
        stream.item();
    }
    let mut out = stream.out;
    if manners == Manners::Hostile && choices.one_in(4) {
        // A peer that stops in the middle of something.
        out.truncate(choices.below(out.len() + 1));
    }
    out
}

struct Stream<'s, 'd> {
    choices: &'s mut Choices<'d>,
    limits: &'s Limits,
    manners: Manners,
    out: Vec<u8>,
}

impl Stream<'_, '_> {
    fn item(&mut self) {
        let kind_count = if self.manners == Manners::Polite { 15 } else { 20 };
        match self.choices.below(kind_count) {
            0..=4 => {
                let payload = self.text();
                self.frame(FIN | TEXT, &payload);
            }
            5..=8 => {
                let payload = self.bytes();
                self.frame(FIN | BINARY, &payload);
            }
            9..=13 => self.fragments(),
            14 => self.control(),
            15 => self.close(),
            16 => self.broken_frame(),
            17 => self.header_alone(),
            18 => {
                let length = self.choices.below(20);
                self.put_raw(length);
            }
            _ => {
                // Out of order, or a message that never ends.
                let opcode = [CONTINUATION, TEXT, BINARY][self.choices.below(3)];
                let payload = self.text();
                self.frame(opcode, &payload);
            }
        }
    }

    fn frame(&mut self, first: u8, payload: &[u8]) {
        let form = match self.choices.below(16) {
            0 => LengthForm::TwoBytes,
            1 => LengthForm::EightBytes,
            _ => LengthForm::Shortest,
        };
        let key = self.choices.key();
        self.out.extend(frame(first, payload, key, form));
    }

    fn put_raw(&mut self, length: usize) {
        for _ in 0..length {
            let byte = self.choices.byte();
            self.out.push(byte);
        }
    }

    /// Lengths that matter: those around every border, else short ones.
    fn length(&mut self) -> usize {
        let limit = self.limits.max_frame_bytes.min(self.limits.max_message_bytes).min(1 << 10);
        match self.choices.below(16) {
            0 => 0,
            1 => 1,
            2 => 125,
            3 => 126,
            4 => 127,
            5 => limit - 1,
            6 => limit,
            7 if self.manners == Manners::Hostile => limit + 1,
            _ => self.choices.below(24),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.length();
        let (first, step) = (self.choices.byte(), self.choices.byte());
        let at = |at: usize| first.wrapping_add(step.wrapping_mul(at.to_le_bytes()[0]));
        (0..length).map(at).collect()
    }

    /// Text of characters of every width; sometimes spoilt in one byte.
    fn text(&mut self) -> Vec<u8> {
        const CHARACTERS: [&str; 8] = ["a", "Z", "\0", "é", "ß", "€", "\u{FFFF}", "🦅"];
        let length = self.length();
        let mut text = Vec::new();
        while text.len() < length {
            let character = match length - text.len() {
                0..=3 => CHARACTERS[self.choices.below(3)],
                _ => CHARACTERS[self.choices.below(CHARACTERS.len())],
            };
            text.extend(character.as_bytes());
        }
        let may_spoil = self.manners == Manners::Hostile && !text.is_empty();
        if may_spoil && self.choices.one_in(12) {
            let at = self.choices.below(text.len());
            text[at] = [0xFF, 0xC0, 0x80, 0xED, 0xF5][self.choices.below(5)];
        }
        text
    }

    /// A message in fragments, cut anywhere, with control frames between.
    fn fragments(&mut self) {
        let is_text = self.choices.one_in(2);
        let payload = if is_text { self.text() } else { self.bytes() };
        let mut rest = payload.as_slice();
        let mut opcode = if is_text { TEXT } else { BINARY };
        for _ in 0..self.choices.below(5) {
            let (fragment, tail) = rest.split_at(self.choices.below(rest.len() + 1));
            self.frame(opcode, fragment);
            rest = tail;
            opcode = CONTINUATION;
            if self.choices.one_in(3) {
                self.control();
            }
        }
        self.frame(FIN | opcode, rest);
    }

    fn control(&mut self) {
        let opcode = [PING, PONG][self.choices.below(2)];
        let length = [0, 1, 5, 125][self.choices.below(4)];
        let payload = vec![self.choices.byte(); length];
        self.frame(FIN | opcode, &payload);
    }

    fn close(&mut self) {
        const CODES: [u16; 8] = [1000, 1001, 3000, 4999, 0, 1005, 1006, 5000];
        let payload = match self.choices.below(8) {
            0 => vec![],
            1 => vec![3],
            _ => {
                let code = CODES[self.choices.below(CODES.len())];
                let mut reason = self.text();
                reason.truncate(self.choices.below(124));
                [&code.to_be_bytes(), reason.as_slice()].concat()
            }
        };
        self.frame(FIN | CLOSE, &payload);
    }

    /// A frame of which one or several things are wrong.
    fn broken_frame(&mut self) {
        let mut first = [FIN | TEXT, FIN | BINARY, TEXT, FIN | PING, FIN][self.choices.below(5)];
        let mut mask_bit = 0x80;
        let mut length = self.length() as u64;
        for _ in 0..=self.choices.below(3) {
            match self.choices.below(7) {
                0 => first |= [0x40, 0x20, 0x10, 0x70][self.choices.below(4)],
                1 => first = first & 0xF0 | [3, 4, 7, 0xB, 0xC, 0xF][self.choices.below(6)],
                2 => mask_bit = 0,
                3 => first = CLOSE | (first & !0x8F),
                4 => (first, length) = (FIN | PONG, 126),
                5 => length = [1 << 16, 1 << 20, 1 << 40, 1 << 63, u64::MAX][self.choices.below(5)],
                _ => first &= !FIN,
            }
        }
        self.out.push(first);
        put_length(&mut self.out, mask_bit, length, LengthForm::Shortest);
        if mask_bit != 0 {
            let key = self.choices.key();
            self.out.extend(key);
        }
        let payload = usize::try_from(length).map_or(0, |length| length.min(300));
        self.out.resize(self.out.len() + payload, b'x');
    }

    /// A header whose payload does not come.
    fn header_alone(&mut self) {
        let first = self.choices.byte();
        self.out.push(first);
        let length = self.length() as u64;
        put_length(&mut self.out, 0x80, length, LengthForm::Shortest);
        self.put_raw(4);
    }
}
