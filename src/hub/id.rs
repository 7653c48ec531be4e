//! [`ConnectionId`]: an id that is an address.
//!
//! Knows the four parts of an id and their text form. Must not know what a connection is, nor
//! whether one lives.

use std::fmt;
use std::str::FromStr;

const SLOT_BITS: u32 = 22;
const GENERATION_BITS: u32 = 40;
const SHARD_BITS: u32 = 12;
const NODE_BITS: u32 = 48;

/// The most shards that an id can name.
pub(crate) const SHARD_COUNT_MAX: usize = 1 << SHARD_BITS;
/// The most connections of one shard that an id can name.
pub(crate) const SLOT_COUNT_MAX: usize = 1 << SLOT_BITS;

/// The index of a connection in its shard.
pub(crate) type Slot = usize;

// An address has to fit into mio's token.
const _: () = assert!(usize::BITS >= SLOT_BITS + GENERATION_BITS);

/// Where a connection lives within its shard, and how often the slot was reused before.
///
/// A shard's generations count its connections, whichever slots they get: 40 bits last for three
/// years at ten thousand connections a second, so that no address is ever given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address(u64);

impl Address {
    pub(crate) fn new(slot: usize, generation: u64) -> Self {
        debug_assert!(slot < SLOT_COUNT_MAX, "slot {slot} does not fit");
        let generation = generation & ((1 << GENERATION_BITS) - 1);
        Self((generation << SLOT_BITS) | slot as u64)
    }

    #[inline]
    pub(crate) fn slot(self) -> usize {
        self.token() & (SLOT_COUNT_MAX - 1)
    }

    /// As mio's token: 62 bits, so never one of the highest values.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "asserted above: usize has 64 bits")]
    pub(crate) fn token(self) -> usize {
        self.0 as usize
    }

    #[inline]
    pub(crate) fn from_token(token: usize) -> Self {
        Self(token as u64)
    }
}

/// The id of a connection: unique among all connections of all servers, printable as a UUID
/// (version 8, RFC 9562), parseable back.
///
/// It *is* the connection's address (node, shard, slot, generation), so that reaching a connection
/// by its id needs no registry and no lock, and an id that has outlived its connection is
/// recognised: it never reaches another one.
///
/// It is **not a secret**: ids can be guessed from one another. Do not use one as a token.
///
/// ```
/// use peregrine::ConnectionId;
///
/// let id: ConnectionId = "b1946ac9-2f1d-8003-8000-0040000007c2".parse()?;
/// assert_eq!(id.to_string(), "b1946ac9-2f1d-8003-8000-0040000007c2");
/// assert_eq!(id.shard(), 3);
/// # Ok::<(), peregrine::ParseIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// Node (48 bits), version (4), shard (12).
    high: u64,
    /// Variant (2 bits), generation (40), slot (22).
    low: u64,
}

const VERSION: u64 = 8 << SHARD_BITS;
const VERSION_MASK: u64 = 0xF << SHARD_BITS;
const VARIANT: u64 = 0b10 << (SLOT_BITS + GENERATION_BITS);
const ADDRESS_MASK: u64 = (1 << (SLOT_BITS + GENERATION_BITS)) - 1;
const SHARD_MASK: u64 = SHARD_COUNT_MAX as u64 - 1;

impl ConnectionId {
    pub(crate) fn new(node: Node, shard: usize, address: Address) -> Self {
        debug_assert!(shard < SHARD_COUNT_MAX, "shard {shard} does not fit");
        Self { high: (node.0 << 16) | VERSION | shard as u64, low: VARIANT | address.0 }
    }

    /// The index of the shard that the connection lives on, counted from 0.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "masked to 12 bits")]
    pub fn shard(&self) -> usize {
        (self.high & SHARD_MASK) as usize
    }

    #[inline]
    pub(crate) fn address(self) -> Address {
        Address(self.low & ADDRESS_MASK)
    }

    #[inline]
    pub(crate) fn node(self) -> Node {
        Node(self.high >> 16)
    }

    /// The id as the 128 bits of its UUID form.
    #[must_use]
    pub fn as_u128(&self) -> u128 {
        (u128::from(self.high) << 64) | u128::from(self.low)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (high, low) = (self.high, self.low);
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xFFFF,
            high & 0xFFFF,
            low >> 48,
            low & 0xFFFF_FFFF_FFFF
        )
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a [`ConnectionId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseIdError;

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the id of a connection")
    }
}

impl std::error::Error for ParseIdError {}

impl FromStr for ConnectionId {
    type Err = ParseIdError;

    /// Parses the UUID form, in lower or upper case.
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let is_dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
        if text.len() != 36 {
            return Err(ParseIdError);
        }
        let mut bits = 0u128;
        for (at, byte) in text.bytes().enumerate() {
            match char::from(byte).to_digit(16) {
                Some(digit) if !is_dash(at) => bits = (bits << 4) | u128::from(digit),
                None if is_dash(at) && byte == b'-' => {}
                _ => return Err(ParseIdError),
            }
        }
        let [high, low] = [bits >> 64, bits & u128::from(u64::MAX)]
            .map(|half| u64::try_from(half).unwrap_or_default());
        let is_ours = high & VERSION_MASK == VERSION && low & !ADDRESS_MASK == VARIANT;
        if is_ours { Ok(Self { high, low }) } else { Err(ParseIdError) }
    }
}

/// Which server an id belongs to: 48 random bits, drawn when a server is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Node(u64);

impl Node {
    /// Draws a node. The randomness is that of the standard library's hash maps.
    pub(crate) fn random() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self(RandomState::new().hash_one(std::process::id()) >> (64 - NODE_BITS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_keeps_its_parts_and_survives_its_text() {
        let node = Node::random();
        for (shard, slot, generation) in
            [(0, 0, 0), (4095, SLOT_COUNT_MAX - 1, (1 << GENERATION_BITS) - 1), (3, 77, 12_345)]
        {
            let address = Address::new(slot, generation);
            let id = ConnectionId::new(node, shard, address);
            assert_eq!((id.node(), id.shard(), id.address()), (node, shard, address));
            assert_eq!(id.address().slot(), slot);
            assert_eq!(Address::from_token(address.token()), address);
            let text = id.to_string();
            assert_eq!(text.parse(), Ok(id));
            assert_eq!(text.to_uppercase().parse(), Ok(id));
            assert_eq!(text.as_bytes()[14], b'8', "version 8");
            assert!(b"89ab".contains(&text.as_bytes()[19]), "the variant of RFC 9562");
        }
    }

    #[test]
    fn other_texts_are_not_ids() {
        for text in [
            "",
            "b1946ac9-2f1d-8003-8000-0040000007c",
            "b1946ac9-2f1d-8003-8000-0040000007c22",
            "b1946ac9-2f1d-4003-8000-0040000007c2",
            "b1946ac9-2f1d-8003-c000-0040000007c2",
            "b1946ac9+2f1d-8003-8000-0040000007c2",
            "b1946ac9-2f1d-8003-8000-0040000007cg",
            "b1946ac992f1d-8003-8000-0040000007c2",
        ] {
            assert_eq!(text.parse::<ConnectionId>(), Err(ParseIdError), "{text:?}");
        }
    }
}
