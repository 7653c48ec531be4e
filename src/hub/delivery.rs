//! What became of a message: the futures that senders hold. Dropping one cancels nothing.
//!
//! Knows outcomes. Must not know where a message is on its way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, ready};

use super::answer::Answer;
use super::ticket::{BroadcastReport, Tally, Ticket};
use crate::error::SendError;
use crate::sync::oneshot;
use crate::sync::thread::{self, Thread};

/// What became of one message, as [`send_to_async`](crate::Hub::send_to_async) reports it.
///
/// The message is on its way already: the future only reports. It resolves to `Ok` when the kernel
/// has taken the last byte of the message, else to the reason why the connection did not get it. It
/// needs no particular runtime, belongs to no thread, and resolves also when the server stops.
/// Dropping it cancels nothing. The waiter is woken on a shard's thread: a waker must return
/// soon, as all wakers should.
#[must_use = "it tells whether the message was delivered"]
pub struct Delivery(Eventual<Result<(), SendError>>);

/// How many connections a message reached, as [`broadcast_async`](crate::Hub::broadcast_async)
/// reports it.
///
/// Like [`Delivery`], it only reports. It resolves once nothing is open any more: each connection
/// has got the message or never will. A slow client delays it, within the bounds of
/// [`Limits`](crate::Limits).
#[must_use = "it tells whom the message reached"]
pub struct BroadcastDelivery(Eventual<BroadcastReport>);

/// A value that is known, or will be known.
enum Eventual<T> {
    Refused(SendError),
    Pending(oneshot::Receiver<T>),
}

impl<T> Eventual<T> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<T, SendError>> {
        match self {
            Self::Refused(error) => Poll::Ready(Err(*error)),
            // Only a shard that has ended settles nothing.
            Self::Pending(receiver) => {
                let told = ready!(Pin::new(receiver).poll(context));
                Poll::Ready(told.map_err(|_| SendError::ShuttingDown))
            }
        }
    }
}

impl Delivery {
    /// A message that was not accepted.
    pub(crate) fn refused(error: SendError) -> Self {
        Self(Eventual::Refused(error))
    }

    /// The future for a message, and the ticket to travel with it.
    pub(crate) fn new() -> (Self, Ticket) {
        let (delivery, answer) = Self::pair();
        (delivery, Ticket::One(answer))
    }

    /// Blocks the calling thread until it is known what became of the message: for threads that
    /// await nothing, such as [offloaded](crate::Reply::offload) work. Not to be called by a
    /// handler: the shard that it blocks may be the one that has to deliver.
    ///
    /// ```
    /// use std::fs::File;
    /// use std::io::{self, Read};
    ///
    /// use peregrine::{MessageWriter, SendError};
    ///
    /// /// Sends a file, piece by piece, as fast as the client takes it.
    /// type Sent = Result<(), SendError>;
    ///
    /// fn send(mut file: File, mut stream: MessageWriter<[u8]>) -> io::Result<Sent> {
    ///     let mut piece = vec![0; 64 << 10];
    ///     loop {
    ///         let count = file.read(&mut piece)?;
    ///         if count == 0 {
    ///             return Ok(stream.finish());
    ///         }
    ///         if let Err(error) = stream.write_async(&piece[..count]).wait() {
    ///             return Ok(Err(error));
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// What the future resolves to.
    pub fn wait(self) -> Result<(), SendError> {
        wait(self)
    }

    /// The future, and what tells it.
    pub(super) fn pair() -> (Self, Answer<Result<(), SendError>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Eventual::Pending(receiver)), Answer::by(sender))
    }
}

/// Wakes the thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait<F: Future + Unpin>(mut future: F) -> F::Output {
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    loop {
        match Pin::new(&mut future).poll(&mut context) {
            Poll::Ready(told) => return told,
            // Woken before, or for another reason: either way the future is asked again.
            Poll::Pending => thread::park(),
        }
    }
}

impl Future for Delivery {
    type Output = Result<(), SendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context).map(Result::flatten)
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").finish_non_exhaustive()
    }
}

impl BroadcastDelivery {
    /// Blocks the calling thread until the fate of the message is known; see
    /// [`Delivery::wait`].
    ///
    /// # Errors
    /// What the future resolves to.
    pub fn wait(self) -> Result<BroadcastReport, SendError> {
        wait(self)
    }

    /// A message that was not accepted.
    pub(crate) fn refused(error: SendError) -> Self {
        Self(Eventual::Refused(error))
    }

    /// The future for a message, and the tally of its deliveries: it is told when the last
    /// reference to the tally is gone.
    pub(crate) fn new() -> (Self, Tally) {
        let (sender, receiver) = oneshot::channel();
        (Self(Eventual::Pending(receiver)), Tally::new(Answer::by(sender)))
    }
}

impl Future for BroadcastDelivery {
    type Output = Result<BroadcastReport, SendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context)
    }
}

impl fmt::Debug for BroadcastDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BroadcastDelivery").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        Pin::new(future).poll(&mut Context::from_waker(std::task::Waker::noop()))
    }

    #[test]
    fn a_delivery_tells_what_its_ticket_was_settled_with() {
        for outcome in [Ok(()), Err(SendError::Gone), Err(SendError::Overloaded)] {
            let (mut delivery, ticket) = Delivery::new();
            assert_eq!(now(&mut delivery), Poll::Pending);
            ticket.settle(outcome);
            assert_eq!(now(&mut delivery), Poll::Ready(outcome));
        }
    }

    #[test]
    fn a_ticket_that_is_dropped_unsettled_tells_that_its_shard_has_ended() {
        let (mut delivery, ticket) = Delivery::new();
        drop(ticket);
        assert_eq!(now(&mut delivery), Poll::Ready(Err(SendError::ShuttingDown)));
    }

    #[test]
    fn a_thread_waits_until_the_ticket_is_settled() {
        for outcome in [Ok(()), Err(SendError::Gone)] {
            let (delivery, ticket) = Delivery::new();
            let waiting = thread::spawn(|| delivery.wait());
            ticket.settle(outcome);
            assert!(waiting.join().is_ok_and(|told| told == outcome));
        }
        assert_eq!(Delivery::refused(SendError::Closed).wait(), Err(SendError::Closed));
    }

    #[test]
    fn a_broadcast_is_told_when_its_last_share_is_settled() {
        let (mut delivery, tally) = BroadcastDelivery::new();
        let shares: Vec<_> = (0..4).map(|_| Ticket::share(&tally)).collect();
        drop(tally);
        let outcomes = [Some(Ok(())), Some(Err(SendError::Overloaded)), Some(Ok(())), None];
        for (share, outcome) in shares.into_iter().zip(outcomes) {
            assert_eq!(now(&mut delivery), Poll::Pending);
            match outcome {
                Some(outcome) => share.settle(outcome),
                None => drop(share),
            }
        }
        let report = BroadcastReport { reached_count: 2, gone_count: 1, overloaded_count: 1 };
        assert_eq!(now(&mut delivery), Poll::Ready(Ok(report)));
    }
}
