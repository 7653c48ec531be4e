//! What a server says, byte by byte: HTTP, then frames, each of which must be right (RFC 6455
//! section 5). Written apart from the server's own code.

/// What a client hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The answer to the request for an upgrade.
    Status(u16),
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// Code 1005 if there is none.
    Close(u16),
}

#[derive(Debug, Default)]
pub struct Parser {
    bytes: Vec<u8>,
    /// How many bytes were taken off before.
    offset: usize,
    is_open: bool,
    has_closed: bool,
    /// A message that has begun, and whether it is a text.
    begun: Option<(bool, Vec<u8>)>,
}

impl Parser {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next that is whole, and the offset of its end.
    pub fn next(&mut self) -> Option<(Said, usize)> {
        loop {
            let (length, said) = if self.is_open { self.frame()? } else { self.head()? };
            self.bytes.drain(..length);
            self.offset += length;
            if let Some(said) = said {
                return Some((said, self.offset));
            }
        }
    }

    fn head(&mut self) -> Option<(usize, Option<Said>)> {
        let end = self.bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&self.bytes[..end]).expect("a head is text");
        let status = head.strip_prefix("HTTP/1.1 ").expect("HTTP").get(..3).expect("a status");
        let status: u16 = status.parse().expect("a status");
        self.is_open = status == 101;
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let body_bytes: usize = length.map_or(0, |length| length.parse().expect("a length"));
        let end = end + body_bytes;
        (self.bytes.len() >= end).then_some((end, Some(Said::Status(status))))
    }

    fn frame(&mut self) -> Option<(usize, Option<Said>)> {
        let &[first, second, ..] = &self.bytes[..] else { return None };
        assert!(!self.has_closed, "nothing follows a Close frame");
        assert_eq!(first & 0x70, 0, "no reserved bits");
        assert_eq!(second & 0x80, 0, "a server does not mask");
        let (is_final, opcode) = (first & 0x80 != 0, first & 0x0F);
        let (header_bytes, payload_bytes) = match second {
            126 => (4, usize::from(u16::from_be_bytes(*self.bytes.get(2..)?.first_chunk()?))),
            127 => {
                let length = u64::from_be_bytes(*self.bytes.get(2..)?.first_chunk()?);
                (10, usize::try_from(length).expect("a length"))
            }
            length => (2, usize::from(length)),
        };
        let end = header_bytes + payload_bytes;
        let payload = self.bytes.get(header_bytes..end)?.to_vec();
        if opcode >= 8 {
            assert!(is_final && payload_bytes <= 125, "a control frame is small and whole");
        }
        let said = match opcode {
            0 => {
                let (_, begun) = self.begun.as_mut().expect("a message has begun");
                begun.extend(payload);
                None
            }
            1 | 2 => {
                assert!(self.begun.is_none(), "a message within another");
                self.begun = Some((opcode == 1, payload));
                None
            }
            8 => {
                self.has_closed = true;
                assert_ne!(payload.len(), 1, "half a code");
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                Some(Said::Close(code))
            }
            9 => Some(Said::Ping(payload)),
            10 => Some(Said::Pong(payload)),
            _ => panic!("opcode {opcode}"),
        };
        if opcode >= 8 || !is_final {
            return Some((end, said));
        }
        let (is_text, message) = self.begun.take().expect("a message");
        if is_text {
            assert!(std::str::from_utf8(&message).is_ok(), "a text is UTF-8");
            return Some((end, Some(Said::Text(message))));
        }
        Some((end, Some(Said::Binary(message))))
    }
}

/// A client's frame, masked.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x11, 0x22, 0x33, 0x44];
    let mut frame = vec![first];
    match u16::try_from(payload.len()) {
        Ok(length @ 0..=125) => frame.push(0x80 | u8::try_from(length).expect("at most 125")),
        Ok(length) => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
