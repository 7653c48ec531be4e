//! What the parts are fed: requests and streams of frames, the same for the same seed.

/// A generator of numbers (splitmix64): small, and the same everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Seed(pub(crate) u64);

impl Seed {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// Text of so many bytes.
    fn text(&mut self, words: &[&str], count: usize) -> String {
        let mut text = String::new();
        while text.len() < count {
            text.push_str(words[self.below(words.len())]);
        }
        text.truncate(text.floor_char_boundary(count));
        text.extend(std::iter::repeat_n('.', count - text.len()));
        text
    }
}

/// Which kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text in ASCII.
    Ascii,
    /// Text with as much beyond ASCII as in a European language.
    Text,
    Binary,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Ascii, Self::Text, Self::Binary];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ascii => "ascii",
            Self::Text => "text",
            Self::Binary => "binary",
        }
    }

    /// The opcode of its messages.
    pub(crate) fn opcode(self) -> u8 {
        match self {
            Self::Ascii | Self::Text => 0x1,
            Self::Binary => 0x2,
        }
    }

    pub(crate) fn payload(self, seed: &mut Seed, count: usize) -> Vec<u8> {
        const ASCII: [&str; 6] = ["falcon ", "the ", "of ", "stoops ", "at ", "200 mph, "];
        const EUROPEAN: [&str; 6] = ["falcon ", "grüße ", "the ", "naïve ", "stoops ", "at "];
        match self {
            Self::Ascii => seed.text(&ASCII, count).into_bytes(),
            Self::Text => seed.text(&EUROPEAN, count).into_bytes(),
            Self::Binary => seed.bytes(count),
        }
    }
}

/// A client's frames, and what a server makes of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    pub(crate) frames: Vec<u8>,
    /// The opcode and the payload of each message.
    pub(crate) messages: Vec<(u8, Vec<u8>)>,
    /// The bytes of the pongs that are owed.
    pub(crate) pong_bytes: usize,
}

impl Stream {
    /// Whole messages of one kind and size, as many as go into `bytes`, at least one.
    pub(crate) fn whole(seed: &mut Seed, kind: Kind, payload_bytes: usize, bytes: usize) -> Self {
        let mut stream = Self::default();
        while stream.messages.is_empty() || stream.frames.len() + payload_bytes + 14 <= bytes {
            stream.message(seed, kind, payload_bytes, 1);
        }
        stream
    }

    /// What chatty clients send: mostly small whole messages, some in fragments with a ping among
    /// them, some pings and pongs alone; about so many bytes.
    pub(crate) fn mixed(seed: &mut Seed, bytes: usize) -> Self {
        let mut stream = Self::default();
        while stream.frames.len() < bytes {
            let kind = Kind::ALL[seed.below(3)];
            match seed.below(10) {
                0 => stream.control(seed, 0x9),
                1 => stream.control(seed, 0xA),
                2 | 3 => {
                    let (payload_bytes, count) = (100 + seed.below(1500), 2 + seed.below(4));
                    stream.message(seed, kind, payload_bytes, count);
                }
                _ => {
                    let payload_bytes = 8 + seed.below(200);
                    stream.message(seed, kind, payload_bytes, 1);
                }
            }
        }
        stream
    }

    /// A message in so many frames, the second after a ping.
    fn message(&mut self, seed: &mut Seed, kind: Kind, payload_bytes: usize, frame_count: usize) {
        let (opcode, payload) = (kind.opcode(), kind.payload(seed, payload_bytes));
        let size = payload.len().div_ceil(frame_count).max(1);
        let mut parts = payload.chunks(size).enumerate().peekable();
        while let Some((at, part)) = parts.next() {
            if at == 1 {
                self.control(seed, 0x9);
            }
            let fin = if parts.peek().is_none() { 0x80 } else { 0 };
            put_frame(&mut self.frames, seed, fin | if at == 0 { opcode } else { 0 }, part);
        }
        self.messages.push((opcode, payload));
    }

    fn control(&mut self, seed: &mut Seed, opcode: u8) {
        let count = seed.below(16);
        let payload = seed.bytes(count);
        put_frame(&mut self.frames, seed, 0x80 | opcode, &payload);
        if opcode == 0x9 {
            self.pong_bytes += 2 + payload.len();
        }
    }
}

/// Appends a frame as clients send it.
pub(crate) fn put_frame(out: &mut Vec<u8>, seed: &mut Seed, first: u8, payload: &[u8]) {
    put_header(out, first, 0x80, payload.len());
    let key = seed.next().to_le_bytes();
    out.extend(&key[..4]);
    out.extend(payload.iter().zip(key[..4].iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// Appends a frame as servers send it.
pub(crate) fn put_unmasked(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    put_header(out, first, 0, payload.len());
    out.extend(payload);
}

fn put_header(out: &mut Vec<u8>, first: u8, mask_bit: u8, length: usize) {
    let bytes = (length as u64).to_be_bytes();
    out.push(first);
    match length {
        0..=125 => out.push(mask_bit | bytes[7]),
        126..=0xFFFF => out.extend([mask_bit | 126, bytes[6], bytes[7]]),
        _ => {
            out.push(mask_bit | 127);
            out.extend(bytes);
        }
    }
}

/// The sample key of RFC 6455 section 1.3, and the line that answers it.
pub(crate) const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

/// What a program asks with.
pub(crate) const SHORT_REQUEST: &str = "GET /echo HTTP/1.1\r\nHost: localhost:8080\r\n\
    Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// What a browser asks with.
pub(crate) const BROWSER_REQUEST: &str = "GET /chat?room=lobby HTTP/1.1\r\n\
    Host: chat.example.com\r\nConnection: Upgrade\r\nPragma: no-cache\r\n\
    Cache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) \
    AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36\r\n\
    Upgrade: websocket\r\nOrigin: https://chat.example.com\r\n\
    Sec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\nCookie: session=0123456789abcdef0123456789abcdef; \
    theme=dark\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
