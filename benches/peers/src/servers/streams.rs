//! What tokio-tungstenite and axum have in common: a socket is a `Stream` and a `Sink` of messages.
//! Each has a type of message of its own.

use std::future::poll_fn;
use std::task::Poll;

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::sync::broadcast::{Receiver, Sender};

use super::next_said;

/// What must be known of a message: its kind, and how to say farewell.
pub(super) trait AnyMessage: Clone + Send + 'static {
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
        // One look for input a wake-up, no more: tungstenite fills the rest of its read buffer with
        // zeros each time.
        let next = poll_fn(|context| {
            let next = socket.poll_next_unpin(context);
            if next.is_pending()
                && let Poll::Ready(Err(error)) = socket.poll_flush_unpin(context)
            {
                return Poll::Ready(Some(Err(error)));
            }
            next
        });
        let Some(message) = next.await.transpose()? else { return Ok(()) };
        if message.is_data() {
            socket.feed(message).await?;
        }
    }
}

/// A member of the crowd: what it says is said to all, what was said to all is sent to it. Two
/// tasks, as axum's documentation has it, for the same reason as above: who only sends does not
/// look for input. That halves the cost of a delivery.
pub(super) async fn join<M: AnyMessage, E: Send + 'static>(
    socket: impl Stream<Item = Result<M, E>> + Sink<M, Error = E> + Send + 'static,
    crowd: Sender<M>,
    said: Receiver<M>,
) {
    let (writer, mut reader) = socket.split();
    let speaker = tokio::spawn(speak(writer, said));
    while let Some(Ok(message)) = reader.next().await {
        if message.is_data() {
            // There is one who hears: this one.
            let _ = crowd.send(message);
        }
    }
    speaker.abort();
}

/// Messages that wait together leave in one write.
async fn speak<M: AnyMessage, E>(
    mut writer: impl Sink<M, Error = E> + Unpin,
    mut said: Receiver<M>,
) -> Result<(), E> {
    while let Some(message) = next_said(&mut said).await {
        writer.feed(message).await?;
        while let Ok(message) = said.try_recv() {
            writer.feed(message).await?;
        }
        writer.flush().await?;
    }
    writer.send(M::lagging()).await
}
