//! A handler that stops its shard, so that what clients send meanwhile is taken up in one turn of
//! the loop.

use std::sync::{Mutex, mpsc};
use std::time::Duration;

use peregrine::{Callbacks, Endpoint, Reply};

/// Keeps its shard, once it has told so, until it is let go.
pub fn gate() -> (Endpoint, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (open, gate) = mpsc::channel();
    let (arrive, arrived) = mpsc::channel();
    let gate = Mutex::new(gate);
    let handler = Callbacks::<()>::new().on_message(move |_ws, _| {
        arrive.send(()).expect("the test waits");
        gate.lock().expect("one shard").recv().expect("the test goes on");
        Reply::none()
    });
    let endpoint = Endpoint::new(handler).adjust_limits(|l| l.slow_handler_after = Duration::MAX);
    (endpoint, arrived, open)
}
