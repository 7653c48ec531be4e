//! What tokio-tungstenite and axum have in common: a socket is a `Stream` and a `Sink` of messages.
//! Each has a type of message of its own.

use futures_util::{FutureExt, Sink, SinkExt, Stream, StreamExt};
use tokio::select;
use tokio::sync::broadcast::{Receiver, Sender};

use super::next_said;

/// What must be known of a message: its kind, and how to say farewell.
pub(super) trait AnyMessage: Clone {
    /// Whether it is text or binary.
    fn is_data(&self) -> bool;
    /// A Close for a member that is too far behind.
    fn lagging() -> Self;
}

/// Does what `read.forward(write)` of tokio-tungstenite's example does, without the lock between
/// the halves: all messages that have come are answered, then all answers leave in one write.
pub(super) async fn echo<M: AnyMessage, E>(
    mut socket: impl Stream<Item = Result<M, E>> + Sink<M, Error = E> + Unpin,
) -> Result<(), E> {
    loop {
        let next = match socket.next().now_or_never() {
            Some(next) => next,
            None => {
                socket.flush().await?;
                socket.next().await
            }
        };
        let Some(message) = next.transpose()? else { return Ok(()) };
        if message.is_data() {
            socket.feed(message).await?;
        }
    }
}

/// A member of the crowd: what it says is said to all, what was said to all is sent to it. Messages
/// that wait together leave in one write.
pub(super) async fn join<M: AnyMessage, E>(
    mut socket: impl Stream<Item = Result<M, E>> + Sink<M, Error = E> + Unpin,
    crowd: Sender<M>,
    mut said: Receiver<M>,
) -> Result<(), E> {
    loop {
        select! {
            message = socket.next() => {
                let Some(message) = message.transpose()? else { return Ok(()) };
                if message.is_data() {
                    // There is one who hears: this one.
                    let _ = crowd.send(message);
                }
            }
            message = next_said(&mut said) => {
                let Some(message) = message else { return socket.send(M::lagging()).await };
                socket.feed(message).await?;
                while let Ok(message) = said.try_recv() {
                    socket.feed(message).await?;
                }
                socket.flush().await?;
            }
        }
    }
}
