//! What stands in, within a model, for what loom does not know.
//!
//! Knows loom. Must not know what is built of these parts.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll};

pub(crate) use loom::sync::{Arc as TrackedArc, Mutex, atomic};
use loom::sync::{Condvar, MutexGuard};
pub(crate) use loom::thread;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For `crossbeam_channel`, with what it leaves open: a sender that knows nothing of the latest
/// `try_recv` may find a bounded channel full that is not; and what is sent while the receiver goes
/// may stay in the channel for as long as there are senders.
pub(crate) mod channel {
    use std::collections::VecDeque;

    use super::atomic::{AtomicBool, AtomicUsize, Ordering};
    use super::{Mutex, lock};

    #[derive(Debug)]
    struct Queue<T> {
        items: Mutex<VecDeque<T>>,
        /// How much room there is, as senders see it.
        room_count: AtomicUsize,
        has_receiver: AtomicBool,
    }

    type Shared<T> = std::sync::Arc<Queue<T>>;

    #[derive(Debug)]
    pub(crate) struct Sender<T>(Shared<T>);

    #[derive(Debug)]
    pub(crate) struct Receiver<T>(Shared<T>);

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum TrySendError {
        Full,
        Disconnected,
    }

    impl TrySendError {
        pub(crate) fn is_disconnected(self) -> bool {
            self == Self::Disconnected
        }
    }

    pub(crate) fn bounded<T>(limit_count: usize) -> (Sender<T>, Receiver<T>) {
        let shared = Shared::new(Queue {
            items: Mutex::default(),
            room_count: AtomicUsize::new(limit_count),
            has_receiver: AtomicBool::new(true),
        });
        (Sender(Shared::clone(&shared)), Receiver(shared))
    }

    pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
        bounded(usize::MAX / 2)
    }

    impl<T> Sender<T> {
        pub(crate) fn try_send(&self, item: T) -> Result<(), TrySendError> {
            let Queue { items, room_count, has_receiver } = &*self.0;
            if !has_receiver.load(Ordering::Acquire) {
                return Err(TrySendError::Disconnected);
            }
            if room_count.load(Ordering::Relaxed) == 0 {
                return Err(TrySendError::Full);
            }
            let mut items = lock(items);
            // The lock knows better than the first look did.
            if room_count.fetch_add(0, Ordering::Relaxed) == 0 {
                return Err(TrySendError::Full);
            }
            room_count.fetch_sub(1, Ordering::Relaxed);
            items.push_back(item);
            Ok(())
        }

        /// Only for what is unbounded.
        pub(crate) fn send(&self, item: T) -> Result<(), TrySendError> {
            self.try_send(item)
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn try_recv(&self) -> Result<T, ()> {
            let Queue { items, room_count, .. } = &*self.0;
            let mut items = lock(items);
            let item = items.pop_front().ok_or(())?;
            room_count.fetch_add(1, Ordering::Relaxed);
            Ok(item)
        }

        pub(crate) fn len(&self) -> usize {
            lock(&self.0.items).len()
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            self.0.has_receiver.store(false, Ordering::Release);
        }
    }
}

/// For `futures_channel::oneshot`.
pub(crate) mod oneshot {
    use std::task::Waker;

    use super::{Context, Future, Mutex, Pin, Poll, lock};

    #[derive(Debug)]
    struct Slot<T> {
        value: Option<T>,
        waker: Option<Waker>,
        has_sender: bool,
    }

    type Shared<T> = std::sync::Arc<Mutex<Slot<T>>>;

    #[derive(Debug)]
    pub(crate) struct Sender<T>(Shared<T>);

    #[derive(Debug)]
    pub(crate) struct Receiver<T>(Shared<T>);

    #[derive(Debug)]
    pub(crate) struct Canceled;

    pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let slot = Slot { value: None, waker: None, has_sender: true };
        let shared = std::sync::Arc::new(Mutex::new(slot));
        (Sender(std::sync::Arc::clone(&shared)), Receiver(shared))
    }

    impl<T> Sender<T> {
        #[expect(clippy::unnecessary_wraps, reason = "as futures'")]
        pub(crate) fn send(self, value: T) -> Result<(), T> {
            lock(&self.0).value = Some(value);
            Ok(())
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            let mut slot = lock(&self.0);
            slot.has_sender = false;
            let waker = slot.waker.take();
            drop(slot);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    impl<T> Future for Receiver<T> {
        type Output = Result<T, Canceled>;

        fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
            let mut slot = lock(&self.0);
            match slot.value.take() {
                Some(value) => Poll::Ready(Ok(value)),
                None if !slot.has_sender => Poll::Ready(Err(Canceled)),
                None => {
                    slot.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        }
    }
}

/// For `mio::Waker` and the sleep that it ends. It counts.
#[derive(Clone, Debug)]
pub(crate) struct Waker(std::sync::Arc<Sleep>);

#[derive(Debug)]
struct Sleep {
    wakes: Mutex<Wakes>,
    woken: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct Wakes {
    count: usize,
    is_pending: bool,
}

impl Waker {
    #[expect(clippy::unnecessary_wraps, reason = "as mio's")]
    pub(crate) fn new(_: &mio::Registry, _: mio::Token) -> io::Result<Self> {
        Ok(Self::alone())
    }

    /// A waker without a `Poll`.
    pub(crate) fn alone() -> Self {
        Self(std::sync::Arc::new(Sleep { wakes: Mutex::default(), woken: Condvar::new() }))
    }

    #[expect(clippy::unnecessary_wraps, reason = "as mio's")]
    pub(crate) fn wake(&self) -> io::Result<()> {
        let mut wakes = lock(&self.0.wakes);
        wakes.count += 1;
        wakes.is_pending = true;
        self.0.woken.notify_one();
        Ok(())
    }

    /// What the shard does between two turns: sleeps until it was woken.
    pub(crate) fn sleep(&self) {
        let mut wakes = lock(&self.0.wakes);
        while !wakes.is_pending {
            wakes = self.0.woken.wait(wakes).unwrap_or_else(PoisonError::into_inner);
        }
        wakes.is_pending = false;
    }

    /// How often it was woken.
    pub(crate) fn count(&self) -> usize {
        lock(&self.0.wakes).count
    }
}
