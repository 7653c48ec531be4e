//! [`Uneven`]: a transport around another one that behaves as one with a record layer may.
//!
//! It delays every second read, hands out input in other portions than it received, and holds what
//! the kernel does not take of a record that has begun. Its end waits until there is room for it.
//!
//! Knows bytes. Must not know what they mean.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use mio::{Registry, Token};

use super::memory::ServerEnd;
use crate::transport::outcome::{Acknowledged, Input, More, Output};
use crate::transport::tcp::Tcp;

/// How many bytes one read hands out, one after another.
const PORTIONS: [usize; 8] = [1, 7, READ_BYTES, 2, READ_BYTES, 100, READ_BYTES, 1000];
/// How many bytes one record has, one after another.
const RECORDS: [usize; 7] = [16 << 10, 5, 16 << 10, 300, 16 << 10, 1, 40];
/// How much is read at once.
const READ_BYTES: usize = 16 << 10;

/// What it is around.
#[derive(Debug)]
pub(super) enum Inner {
    Tcp(Tcp),
    Memory(ServerEnd),
}

/// Does the same with each kind of inner transport.
macro_rules! each {
    ($inner:expr, $transport:ident => $call:expr) => {
        match $inner {
            Inner::Tcp($transport) => $call,
            Inner::Memory($transport) => $call,
        }
    };
}

#[derive(Debug)]
pub(crate) struct Uneven {
    inner: Inner,
    read_count: usize,
    record_count: usize,
    /// What was read and not handed out.
    input: VecDeque<u8>,
    /// The rest of a record that the inner transport did not take.
    held: Vec<u8>,
    /// The end is to be sent.
    ends: bool,
}

impl Uneven {
    pub(super) fn new(inner: Inner) -> Self {
        Self {
            inner,
            read_count: 0,
            record_count: 0,
            input: VecDeque::new(),
            held: Vec::new(),
            ends: false,
        }
    }

    pub(super) fn into_inner(self) -> Inner {
        assert_eq!((self.read_count, self.record_count), (0, 0), "it travels unused");
        self.inner
    }

    pub(super) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        match &self.inner {
            Inner::Tcp(tcp) => tcp.register(registry, token)?,
            Inner::Memory(end) => end.register(registry, token),
        }
        Ok(())
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Input {
        self.read_count += 1;
        if self.read_count.is_multiple_of(2) {
            return Input::Nothing(More::Maybe);
        }
        // What was read before says nothing of what has come since.
        let mut more = More::Maybe;
        if self.input.is_empty() {
            let mut bytes = [0; READ_BYTES];
            let input = each!(&self.inner, inner => inner.read(&mut bytes));
            let Input::Bytes(count, inner_more) = input else { return input };
            self.input.extend(&bytes[..count]);
            more = inner_more;
        }
        let portion = PORTIONS[self.read_count / 2 % PORTIONS.len()];
        let count = portion.min(buffer.len()).min(self.input.len());
        for (byte, input) in buffer.iter_mut().zip(self.input.drain(..count)) {
            *byte = input;
        }
        Input::Bytes(count, if self.input.is_empty() { more } else { More::Maybe })
    }

    pub(super) fn write(&mut self, slices: &[IoSlice<'_>]) -> Output {
        let mut offered = slices.iter().flat_map(|slice| slice.iter().copied());
        assert!(!self.ends, "nothing is written after the end");
        let mut written = 0;
        loop {
            let held_bytes = self.held.len();
            let mut record_bytes = held_bytes;
            if held_bytes == 0 {
                record_bytes = RECORDS[self.record_count % RECORDS.len()];
                self.record_count += 1;
            }
            let mut record: Vec<u8> = offered.by_ref().take(record_bytes).collect();
            assert!(
                record.starts_with(&self.held),
                "what has begun to leave goes first, unchanged"
            );
            if record.is_empty() {
                return Output::Bytes(written);
            }
            let Output::Bytes(taken) = self.write_inner(&record) else {
                if written == 0 {
                    return Output::Broken;
                }
                self.held = record;
                return Output::Bytes(written);
            };
            written += taken;
            self.held = record.split_off(taken);
            if !self.held.is_empty() {
                return Output::Bytes(written);
            }
        }
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    pub(super) fn has_output(&self) -> bool {
        self.ends || !self.held.is_empty()
    }

    pub(super) fn flush(&mut self) -> Output {
        if self.ends && !self.is_full() {
            self.ends = false;
            each!(&self.inner, inner => inner.shut_down_write());
        }
        Output::Bytes(0)
    }

    pub(super) fn acknowledged(&self) -> Option<Acknowledged> {
        each!(&self.inner, inner => inner.acknowledged())
    }

    pub(super) fn finish(&mut self) {
        assert!(self.held.is_empty(), "all was handed over");
        self.ends = true;
        self.flush();
    }

    pub(super) fn shut_down_write(&mut self) {
        self.held.clear();
        self.ends = false;
        each!(&self.inner, inner => inner.shut_down_write());
    }

    pub(super) fn shut_down(&mut self) {
        self.held.clear();
        self.ends = false;
        each!(&self.inner, inner => inner.shut_down());
    }

    pub(super) fn is_at_rest(&self, is_blocked: bool) -> bool {
        self.input.is_empty() && each!(&self.inner, inner => inner.is_at_rest(is_blocked))
    }

    fn write_inner(&self, bytes: &[u8]) -> Output {
        match &self.inner {
            Inner::Tcp(tcp) => tcp.write(bytes),
            Inner::Memory(end) => end.write(&[IoSlice::new(bytes)]),
        }
    }

    /// Whether nothing is taken now; then an event tells when it is. A socket does not say.
    fn is_full(&self) -> bool {
        match &self.inner {
            Inner::Tcp(_) => false,
            Inner::Memory(end) => end.is_full(),
        }
    }
}
