//! [`Cork`]: what a handler has sent to its own connection in the current service and the kernel
//! has not got yet, so that it leaves in one write.
//!
//! A connection's output leaves in this order: its outbox, the cork's bytes, the [`FastCork`].
//!
//! Knows frames and slots. Must not know connections, nor when a cork is written.

use bytes::Bytes;

use crate::hub::Slot;
use crate::message::Message;
use crate::protocol::frame;

/// When the output of one service is handed to the kernel before the service ends, in bytes.
pub(in crate::shard) const CORK_BYTES: usize = 64 << 10;
/// What a cork may keep allocated from one service to the next, in bytes.
const KEPT_BYTES: usize = 4 << 20;

/// The output of the current service.
///
/// * Getters: [`is_of`](Self::is_of), [`bytes`](Self::bytes), [`http_bytes`](Self::http_bytes),
///   [`message_bytes`](Self::message_bytes), [`share`](Self::share).
/// * Commands: [`begin`](Self::begin), then [`append`](Self::append) and its kin or
///   [`fast`](Self::fast), [`clear`](Self::clear), then [`end`](Self::end), when it is empty.
#[derive(Debug)]
pub(in crate::shard) struct Cork {
    /// Whose service it is.
    slot: Option<Slot>,
    bytes: Vec<u8>,
    /// How much of them is HTTP: what comes before the first frame.
    http_bytes: usize,
    /// What comes after them.
    pub(in crate::shard) fast: FastCork,
    /// What the message lies in that is handed to the handler, if that is long and can be shared.
    lent: Option<Bytes>,
}

impl Cork {
    pub(in crate::shard) fn new() -> Self {
        Self {
            slot: None,
            bytes: Vec::with_capacity(CORK_BYTES),
            http_bytes: 0,
            fast: FastCork::new(),
            lent: None,
        }
    }

    /// Whether nobody is served, and nothing is left of who was.
    pub(in crate::shard) fn is_at_rest(&self) -> bool {
        self.slot.is_none()
            && self.bytes.is_empty()
            && self.http_bytes == 0
            && self.lent.is_none()
            && !self.fast.is_open()
            && self.fast.content().is_empty()
    }

    /// Whether this connection is being served.
    #[inline]
    pub(in crate::shard) fn is_of(&self, slot: Slot) -> bool {
        self.slot == Some(slot)
    }

    #[inline]
    pub(in crate::shard) fn begin(&mut self, slot: Slot) {
        debug_assert!(self.is_at_rest());
        self.slot = Some(slot);
    }

    /// Nobody is served any more. What is in it belongs to the connection that was.
    #[inline]
    pub(in crate::shard) fn end(&mut self) {
        self.slot = None;
    }

    /// Without what is in the fast cork.
    #[inline]
    pub(in crate::shard) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(in crate::shard) fn http_bytes(&self) -> usize {
        self.http_bytes
    }

    /// How much of all is no HTTP.
    #[inline]
    pub(in crate::shard) fn message_bytes(&self) -> usize {
        self.bytes.len() - self.http_bytes + self.fast.content().len()
    }

    #[inline]
    pub(in crate::shard) fn append(&mut self, message: Message<'_>) {
        frame::append(&mut self.bytes, message);
    }

    #[inline]
    pub(in crate::shard) fn append_slice(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// For what is encoded in place.
    pub(in crate::shard) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What is in it is HTTP, what follows are frames.
    pub(in crate::shard) fn end_http(&mut self) {
        self.http_bytes = self.bytes.len();
    }

    /// Moves what is in the fast cork behind the bytes, and closes it.
    #[inline]
    pub(in crate::shard) fn close_fast(&mut self) {
        if self.fast.is_open() {
            self.bytes.extend_from_slice(self.fast.content());
            self.fast.clear();
            self.fast.close();
        }
    }

    /// Forgets its bytes.
    #[inline]
    pub(in crate::shard) fn clear(&mut self) {
        self.bytes.clear();
        self.http_bytes = 0;
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes.shrink_to(CORK_BYTES);
        }
    }

    /// Notes in what memory the message lies that is handed to the handler; then that none is.
    pub(in crate::shard) fn lend(&mut self, memory: Option<Bytes>) {
        self.lent = memory;
    }

    /// These bytes as a part of the memory that is lent, if they lie in it, and are so much of it
    /// that to keep them may keep it all.
    pub(in crate::shard) fn share(&self, bytes: &[u8]) -> Option<Bytes> {
        let lent = self.lent.as_ref()?;
        let (all, part) = (lent.as_ptr_range(), bytes.as_ptr_range());
        let is_inside = all.start <= part.start && part.end <= all.end;
        (is_inside && bytes.len() >= lent.len() / 2).then(|| lent.slice_ref(bytes))
    }
}

/// The cork's part for replies on the fast path.
///
/// While it is open, `append` checks nothing but the space that is left. Any other operation first
/// moves the content to the cork and closes this part, which keeps program order.
#[derive(Debug)]
pub(in crate::shard) struct FastCork {
    bytes: Box<[u8]>,
    length: usize,
    /// How long it may become; 0 while it is closed.
    limit: usize,
}

impl FastCork {
    fn new() -> Self {
        Self { bytes: vec![0; CORK_BYTES].into(), length: 0, limit: 0 }
    }

    #[inline]
    pub(in crate::shard) fn open(&mut self, limit: usize) {
        debug_assert!(self.length == 0 && limit <= self.bytes.len());
        self.limit = limit;
    }

    #[inline]
    pub(in crate::shard) fn close(&mut self) {
        debug_assert!(self.length == 0, "what is in it was taken out");
        self.limit = 0;
    }

    #[inline]
    pub(in crate::shard) fn is_open(&self) -> bool {
        self.limit > 0
    }

    /// Whether so little is left of it that it is better written than moved.
    pub(in crate::shard) fn is_rather_full(&self) -> bool {
        self.length > 0 && self.length >= self.limit / 2
    }

    /// Appends a message, if it fits.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the call alone costs a twentieth of a short echo")]
    pub(in crate::shard) fn append(&mut self, message: Message<'_>) -> bool {
        match frame::put(message, &mut self.bytes[self.length..self.limit]) {
            Some(bytes) => {
                self.length += bytes;
                true
            }
            None => false,
        }
    }

    /// What is in it.
    #[inline]
    pub(in crate::shard) fn content(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    #[inline]
    pub(in crate::shard) fn clear(&mut self) {
        self.length = 0;
    }
}
