//! [`MessageWriter`]: sending one message in pieces.
//!
//! The handle belongs to no thread. Its pieces travel by the mailbox like any message, but they are
//! never refused behind it: how many bytes may be on their way is bounded here, by credit that the
//! shard gives back when the kernel has taken them. A handle that is dropped before its message is
//! finished rings its shard, so that the half message is not taken for a whole one.
//!
//! Knows pieces and credit. Must not know what the shard does with a piece.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::credit::{Credit, PieceAnswer};
use super::delivery::Delivery;
use super::envelope::Envelope;
use super::handle::Hub;
use super::id::ConnectionId;
use super::ticket::Ticket;
use crate::error::SendError;
use crate::message::{AsMessage, Message};
use crate::protocol::frame::{self, Fragment};

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
pub struct MessageWriter<T: Piece + ?Sized> {
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

impl<T: Piece + ?Sized> fmt::Debug for MessageWriter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageWriter")
            .field("to", &self.to)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

impl<T: Piece + ?Sized> MessageWriter<T> {
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

    /// Like [`write`](Self::write), and reports when the kernel has taken the piece. Awaiting each
    /// one before the next keeps to what the client can take. The piece is sent by the call; the
    /// future only reports.
    pub fn write_async(&mut self, piece: &T) -> Delivery {
        let (delivery, answer) = Delivery::pair();
        match self.send(piece.as_message(), Some(answer), Progress::Begun) {
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

    /// Like [`finish`](Self::finish), and reports when the kernel has taken the whole message.
    pub fn finish_async(&mut self) -> Delivery {
        let (delivery, answer) = Delivery::pair();
        match self.send(T::EMPTY.as_message(), Some(answer), Progress::Finished) {
            Ok(()) => delivery,
            Err(error) => Delivery::refused(error),
        }
    }

    /// How many bytes are on their way and not yet taken by the kernel.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.credit.used_bytes()
    }

    fn send(
        &mut self,
        piece: Message<'_>,
        answer: Option<PieceAnswer>,
        after: Progress,
    ) -> Result<(), SendError> {
        if self.progress == Progress::Finished {
            return Err(SendError::Closed);
        }
        if piece.is_empty() && after == Progress::Begun {
            if let Some(mut answer) = answer {
                answer.tell(Ok(()));
            }
            return Ok(());
        }
        let fragment = Fragment {
            is_first: self.progress == Progress::Empty,
            is_last: after == Progress::Finished,
        };
        let ticket = Ticket::Piece(self.credit.spend(piece.len(), answer)?);
        let frame = frame::encode_fragment(piece, fragment);
        // A shutdown ends sending, but not a message that was begun before.
        let room = self.hub.mailbox(self.to)?.reserve_for_rest(frame.len())?;
        room.send(Envelope::Piece { to: self.to.address(), frame, ticket })?;
        self.progress = after;
        Ok(())
    }
}

impl<T: Piece + ?Sized> Drop for MessageWriter<T> {
    fn drop(&mut self) {
        if self.progress != Progress::Finished {
            self.credit.abandon();
        }
    }
}
