//! What is sent and what must come back: frames made before the clock runs, several different ones
//! in a ring, so that a server that mixes up messages is found out.

use crate::options::Kind;

/// How many different messages take turns; powers of two. Fewer of large ones.
const SMALL_COUNT: usize = 64;
const LARGE_COUNT: usize = 2;
/// From so many bytes on, a message is large.
const LARGE_BYTES: usize = 256 << 10;
/// What one write hands over at most, if it is more than one frame.
const WRITE_BYTES: usize = 256 << 10;

/// The numbers of SplitMix64 (Steele, Lea, Flood 2014): seeded, so that a run can be repeated.
#[derive(Debug)]
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        number ^ (number >> 31)
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next().to_le_bytes()[7])
    }
}

/// Messages without end, by number: as they are sent, masked, and as they come back.
#[derive(Debug)]
pub(crate) struct Script {
    /// All frames one after another, the first ones once more at the end: any batch lies in one
    /// piece.
    sent: Vec<u8>,
    sent_frame_bytes: usize,
    returned: Vec<u8>,
    returned_frame_bytes: usize,
    /// How many are different; a power of two.
    count: u64,
    /// The most that lie in one piece wherever they begin.
    batch_count: u64,
    /// The first byte of a frame: FIN and the opcode.
    pub(crate) first_byte: u8,
    pub(crate) payload_bytes: usize,
}

impl Script {
    /// `in_flight_count` is how many may be sent at once.
    pub(crate) fn new(kind: Kind, payload_bytes: usize, in_flight_count: usize, seed: u64) -> Self {
        let count = if payload_bytes < LARGE_BYTES { SMALL_COUNT } else { LARGE_COUNT };
        let batch_count = (WRITE_BYTES / (payload_bytes + 14)).clamp(1, in_flight_count.max(1));
        let mut numbers = Numbers(seed);
        let mut script = Self {
            sent: Vec::new(),
            sent_frame_bytes: 0,
            returned: Vec::new(),
            returned_frame_bytes: 0,
            count: count as u64,
            batch_count: batch_count as u64,
            first_byte: if kind == Kind::Text { 0x81 } else { 0x82 },
            payload_bytes,
        };
        for _ in 0..count {
            let payload = match kind {
                Kind::Text => text(&mut numbers, payload_bytes),
                Kind::Binary => bytes(&mut numbers, payload_bytes),
            };
            put_frame(&mut script.sent, script.first_byte, &payload, Some(numbers.bytes()));
            put_frame(&mut script.returned, script.first_byte, &payload, None);
        }
        script.sent_frame_bytes = script.sent.len() / count;
        script.returned_frame_bytes = script.returned.len() / count;
        for again in 0..batch_count - 1 {
            let sent = again * script.sent_frame_bytes;
            script.sent.extend_from_within(sent..sent + script.sent_frame_bytes);
            let returned = again * script.returned_frame_bytes;
            script.returned.extend_from_within(returned..returned + script.returned_frame_bytes);
        }
        script
    }

    /// What is to be written next of the `count` messages from `number` on, of the first of which
    /// `written_bytes` have been written.
    pub(crate) fn to_send(&self, number: u64, written_bytes: usize, count: u64) -> &[u8] {
        self.piece(&self.sent, self.sent_frame_bytes, number, written_bytes, count)
    }

    /// What must come next of the `count` messages from `number` on, of the first of which
    /// `read_bytes` have come.
    pub(crate) fn to_return(&self, number: u64, read_bytes: usize, count: u64) -> &[u8] {
        self.piece(&self.returned, self.returned_frame_bytes, number, read_bytes, count)
    }

    /// The payload that must come back.
    pub(crate) fn payload(&self, number: u64) -> &[u8] {
        self.to_return(number, self.returned_frame_bytes - self.payload_bytes, 1)
    }

    /// How many whole messages so many bytes of a batch are, and the bytes of the next one.
    pub(crate) fn sent_messages(&self, bytes: usize) -> (u64, usize) {
        whole(bytes, self.sent_frame_bytes)
    }

    pub(crate) fn returned_messages(&self, bytes: usize) -> (u64, usize) {
        whole(bytes, self.returned_frame_bytes)
    }

    fn piece<'a>(
        &self,
        frames: &'a [u8],
        frame_bytes: usize,
        number: u64,
        done_bytes: usize,
        count: u64,
    ) -> &'a [u8] {
        if count == 0 {
            return &[];
        }
        #[expect(clippy::cast_possible_truncation, reason = "both are small")]
        let (at, count) =
            ((number & (self.count - 1)) as usize, count.min(self.batch_count) as usize);
        &frames[at * frame_bytes + done_bytes..(at + count) * frame_bytes]
    }
}

fn whole(bytes: usize, frame_bytes: usize) -> (u64, usize) {
    // The usual cases, without a division.
    if bytes == frame_bytes {
        (1, 0)
    } else if bytes < frame_bytes {
        (0, bytes)
    } else {
        ((bytes / frame_bytes) as u64, bytes % frame_bytes)
    }
}

/// Appends a frame; a client's is masked.
pub(crate) fn put_frame(out: &mut Vec<u8>, first_byte: u8, payload: &[u8], key: Option<[u8; 4]>) {
    let mask_bit = if key.is_some() { 0x80 } else { 0 };
    let length = (payload.len() as u64).to_be_bytes();
    out.push(first_byte);
    match payload.len() {
        0..=125 => out.push(mask_bit | length[7]),
        126..=0xFFFF => out.extend([mask_bit | 126, length[6], length[7]]),
        _ => {
            out.push(mask_bit | 127);
            out.extend(length);
        }
    }
    match key {
        None => out.extend(payload),
        Some(key) => {
            out.extend(key);
            out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        }
    }
}

fn bytes(numbers: &mut Numbers, count: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        bytes.extend(numbers.next().to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// Text of exactly so many bytes, with as much of it beyond ASCII as in a European language.
fn text(numbers: &mut Numbers, count: usize) -> Vec<u8> {
    const LETTERS: [char; 32] = [
        'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'k', 'l', 'm', 'n', 'o', 'p', 'r', 's', 't',
        'u', 'v', 'w', 'x', 'y', 'z', 'E', 'T', ' ', ' ', ',', 'é', 'ü', 'ß',
    ];
    let mut text = String::with_capacity(count + 16);
    while text.len() < count {
        let number = numbers.next();
        text.extend(
            (0..8).map(|at| LETTERS[usize::from(number.to_le_bytes()[at]) % LETTERS.len()]),
        );
    }
    text.truncate(text.floor_char_boundary(count));
    let mut bytes = text.into_bytes();
    bytes.resize(count, b'.');
    bytes
}

#[cfg(test)]
mod tests {
    use super::Script;
    use crate::options::Kind;

    #[test]
    fn any_batch_of_any_script_lies_in_one_piece_and_is_what_its_frames_are() {
        for kind in [Kind::Text, Kind::Binary] {
            for (payload_bytes, in_flight_count) in
                [(0, 1), (1, 100), (125, 3), (126, 32), (65_535, 9), (65_536, 1), (300_000, 7)]
            {
                let script = Script::new(kind, payload_bytes, in_flight_count, 7);
                for number in [0, 1, 63, 64, 1_000_001] {
                    let batch = script.to_send(number, 0, 1000);
                    let (count, rest) = script.sent_messages(batch.len());
                    assert!(count >= 1 && count <= in_flight_count as u64 && rest == 0);
                    let last = number + count - 1;
                    assert!(batch.ends_with(script.to_send(last, 0, 1)));
                    assert_eq!(script.to_return(last, 0, count).len() as u64 % count, 0);
                    assert_eq!(script.payload(last).len(), payload_bytes);
                    if kind == Kind::Text {
                        assert!(str::from_utf8(script.payload(last)).is_ok());
                    }
                    let header = &script.to_return(last, 0, 1)[..2];
                    assert!(header[0] == script.first_byte && header[1] & 0x80 == 0);
                    assert!(script.to_send(last, 0, 1)[1] & 0x80 != 0);
                }
                if payload_bytes >= 125 {
                    assert_ne!(script.payload(0), script.payload(1));
                }
            }
        }
    }

    #[test]
    fn a_seed_makes_the_same_script_again_and_another_one_another() {
        let script = |seed| Script::new(Kind::Binary, 64, 1, seed).to_send(5, 0, 1).to_vec();
        assert_eq!(script(1), script(1));
        assert_ne!(script(1), script(2));
    }
}
