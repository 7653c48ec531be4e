//! [`Stream`]: sending one message in pieces.
//!
//! The handle belongs to no thread. Its pieces travel by the mailbox like any message, but they are
//! never refused behind it: how many bytes may be on their way is bounded here, by credit that the
//! shard gives back when the kernel has taken them. A handle that is dropped before its message is
//! finished rings its shard, so that the half message is not taken for a whole one.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::alarm::Alarm;
use super::delivery::{Answer, Delivery, Ticket};
use super::{ConnectionId, Envelope, Hub};
use crate::error::SendError;
use crate::message::{AsMessage, Message};
use crate::protocol::frame::{self, Fragment};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What a message's pieces are: `str` makes a text message, `[u8]` a binary one.
pub trait Piece: AsMessage + sealed::Sealed {}

impl Piece for str {}
impl Piece for [u8] {}

mod sealed {
    pub trait Sealed: 'static {
        const EMPTY: &'static Self;
    }
    impl Sealed for str {
        const EMPTY: &'static Self = "";
    }
    impl Sealed for [u8] {
        const EMPTY: &'static Self = &[];
    }
}

/// One message to one connection, sent in pieces (RFC 6455 section 5.4), so that it need never be
/// in memory as a whole. Made by [`WebSocket::stream`](crate::WebSocket::stream).
///
/// Each piece leaves as soon as the client takes it. Other messages to that connection wait, in
/// order and within the bounds of its outbox, until this one is finished; control frames pass. It
/// may be given to another thread or be moved into a future.
///
/// Dropped before it is [finished](Self::finish), it closes the connection with 1011: the client
/// must not take half a message for a whole one.
///
/// ```
/// use peregrine::{Callbacks, Reply, Server};
///
/// let numbers = Callbacks::<()>::new().on_message(|ws, _| {
///     let Ok(mut stream) = ws.stream::<str>() else { return Reply::none() };
///     Reply::later(async move {
///         for number in 0..1_000_000 {
///             // Awaited, a piece waits for the client to take the ones before it.
///             if stream.write_async(&format!("{number},")).await.is_err() {
///                 return;
///             }
///         }
///         let _ = stream.finish_async().await;
///     })
/// });
/// let server = Server::builder().websocket("/numbers", numbers).bind("127.0.0.1:0")?;
/// # Ok::<(), peregrine::Error>(())
/// ```
#[must_use = "dropping it before the message is finished closes the connection"]
pub struct Stream<T: Piece + ?Sized> {
    hub: Hub,
    to: ConnectionId,
    credit: Arc<Credit>,
    progress: Progress,
    pieces: PhantomData<fn(&T)>,
}

/// How far the message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Empty,
    Begun,
    Finished,
}

impl<T: Piece + ?Sized> fmt::Debug for Stream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("to", &self.to)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

impl<T: Piece + ?Sized> Stream<T> {
    pub(crate) fn new(hub: Hub, to: ConnectionId, credit: Arc<Credit>) -> Self {
        Self { hub, to, credit, progress: Progress::Empty, pieces: PhantomData }
    }

    /// The connection that the message goes to.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.to
    }

    /// Sends the next piece. An empty one is nothing.
    ///
    /// # Errors
    /// [`Overloaded`](SendError::Overloaded) if as much is on its way as the outbox's high-water
    /// mark allows, or the mailbox is full: nothing of the piece was sent, and it may be tried
    /// again. [`Gone`](SendError::Gone) if the connection has ended, or could not wait for the
    /// message's end; [`Closed`](SendError::Closed) after [`finish`](Self::finish);
    /// [`ShuttingDown`](SendError::ShuttingDown).
    pub fn write(&mut self, piece: &T) -> Result<(), SendError> {
        self.send(piece.as_message(), None, Progress::Begun)
    }

    /// Like [`write`](Self::write), and tells when the kernel has taken the piece. Awaiting each
    /// one before the next keeps to what the client can take. The piece is sent by the call; the
    /// future only tells.
    pub fn write_async(&mut self, piece: &T) -> Delivery {
        let (delivery, told) = Delivery::pair();
        match self.send(piece.as_message(), Some(told), Progress::Begun) {
            Ok(()) => delivery,
            Err(error) => Delivery::refused(error),
        }
    }

    /// Ends the message, and lets those that wait go on.
    ///
    /// # Errors
    /// As of [`write`](Self::write); it may be tried again after
    /// [`Overloaded`](SendError::Overloaded).
    pub fn finish(&mut self) -> Result<(), SendError> {
        self.send(T::EMPTY.as_message(), None, Progress::Finished)
    }

    /// Like [`finish`](Self::finish), and tells when the kernel has taken the whole message.
    pub fn finish_async(&mut self) -> Delivery {
        let (delivery, told) = Delivery::pair();
        match self.send(T::EMPTY.as_message(), Some(told), Progress::Finished) {
            Ok(()) => delivery,
            Err(error) => Delivery::refused(error),
        }
    }

    /// How many bytes are on their way and not yet taken by the kernel.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        // Relaxed: a number to look at.
        self.credit.used_bytes.load(Ordering::Relaxed)
    }

    fn send(
        &mut self,
        piece: Message<'_>,
        told: Option<Told>,
        after: Progress,
    ) -> Result<(), SendError> {
        if self.progress == Progress::Finished {
            return Err(SendError::Closed);
        }
        if piece.is_empty() && after == Progress::Begun {
            if let Some(mut told) = told {
                told.tell(Ok(()));
            }
            return Ok(());
        }
        let fragment = Fragment {
            is_first: self.progress == Progress::Empty,
            is_last: after == Progress::Finished,
        };
        let ticket = Ticket::Piece(self.credit.spend(piece.len(), told)?);
        let frame = frame::encode_fragment(piece, fragment);
        // A shutdown ends sending, but not a message that was begun before.
        let room = self.hub.mailbox(self.to)?.reserve_for_rest(frame.len())?;
        room.send(Envelope::Piece { to: self.to.address(), frame, ticket })?;
        self.progress = after;
        Ok(())
    }
}

impl<T: Piece + ?Sized> Drop for Stream<T> {
    fn drop(&mut self) {
        if self.progress != Progress::Finished {
            // Relaxed: the bell carries it.
            self.credit.is_abandoned.store(true, Ordering::Relaxed);
            self.credit.alarm.ring();
        }
    }
}

/// Who is told what became of a piece.
type Told = Answer<Result<(), SendError>>;

/// What the handle and the connection share: how much is on its way, and whether either has given
/// up.
#[derive(Debug)]
pub(crate) struct Credit {
    alarm: Arc<Alarm>,
    limit_bytes: usize,
    used_bytes: AtomicUsize,
    /// The handle was dropped before the message was finished.
    is_abandoned: AtomicBool,
    /// The connection carries no more pieces.
    is_over: AtomicBool,
}

impl Credit {
    pub(crate) fn new(alarm: Arc<Alarm>, limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            alarm,
            limit_bytes,
            used_bytes: AtomicUsize::new(0),
            is_abandoned: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        })
    }

    /// Takes credit for a piece; its ticket gives it back. One piece of any size is always allowed.
    fn spend(self: &Arc<Self>, bytes: usize, told: Option<Told>) -> Result<PieceTicket, SendError> {
        // Relaxed: who was told that a piece is lost was told after it; who was not learns it then.
        if self.is_over.load(Ordering::Relaxed) {
            return Err(SendError::Gone);
        }
        // Only the handle adds, so nobody else can have added meanwhile. Relaxed: what is read may
        // be too much, until the handle is told of what was given back.
        let used = self.used_bytes.load(Ordering::Relaxed);
        if used > 0 && bytes > 0 && used + bytes > self.limit_bytes {
            return Err(SendError::Overloaded);
        }
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(PieceTicket { credit: Arc::clone(self), bytes, told })
    }

    /// Whether the handle has given up; the shard's answer to its ringing.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.alarm.hear();
        // Relaxed: hearing has shown what came before the ringing.
        self.is_abandoned.load(Ordering::Relaxed)
    }

    /// Whether the handle has given up and the shard will not be told.
    #[cfg(feature = "testing")]
    pub(crate) fn is_unheard(&self) -> bool {
        self.is_abandoned.load(Ordering::Acquire) && !self.alarm.is_ringing()
    }

    /// The connection carries no more pieces.
    pub(crate) fn end(&self) {
        // Relaxed: as in `spend`.
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Travels with a piece; gives its credit back when the piece has left, or will not.
#[derive(Debug)]
pub(crate) struct PieceTicket {
    credit: Arc<Credit>,
    bytes: usize,
    told: Option<Told>,
}

impl PieceTicket {
    /// Which stream it belongs to.
    pub(crate) fn credit(&self) -> &Arc<Credit> {
        &self.credit
    }

    pub(super) fn settle(mut self, outcome: Result<(), SendError>) {
        let told = self.told.take();
        // First the credit: who is told may send the next piece at once.
        drop(self);
        if let Some(mut told) = told {
            told.tell(outcome);
        }
    }
}

impl Drop for PieceTicket {
    fn drop(&mut self) {
        // Relaxed: the news carries it, see `settle`.
        self.credit.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
