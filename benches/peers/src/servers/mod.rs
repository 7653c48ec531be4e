//! One server a file, each written the way its own documentation recommends where speed counts.
//!
//! What is the same for all, so that the comparison is one of libraries:
//!
//! - one thread does the work, or as many as there are shards
//! - `TCP_NODELAY`; no compression; messages of at most [`MESSAGE_BYTES`]; no pings of their own
//! - what is answered to input that came at once leaves at once, where the library can do that
//! - who has its 101 hears all that is said to `/all` from then on
//! - a message to all is shared, never copied per member by us; nothing is dropped in silence: who
//!   has [`CROWD_CAPACITY`] messages to `/all` outstanding is closed with 1013 (peregrine: who has
//!   its default limit of bytes outstanding)

mod actix_ws;
mod axum;
mod corked;
mod fastwebsockets;
mod peregrine;
mod streams;
mod tokio_tungstenite;

use std::error::Error;
use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process;

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// The largest message, in bytes, frame header not counted.
const MESSAGE_BYTES: usize = 1 << 20;

/// The most messages to `/all` that a member may be behind, in those servers that have a queue of
/// messages; a power of two.
const CROWD_CAPACITY: usize = 1 << 10;

/// What a member hears that was further behind.
const TRY_AGAIN_LATER: u16 = 1013;
const LAGGING: &str = "too slow";

/// What is to be served, and where.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// How many threads do the work.
    pub(crate) shard_count: usize,
}

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Serves until the process ends.
pub(crate) type Serve = fn(&Plan) -> Outcome;

pub(crate) const SERVERS: [(&str, Serve); 5] = [
    ("peregrine", peregrine::serve),
    ("tokio-tungstenite", tokio_tungstenite::serve),
    ("fastwebsockets", fastwebsockets::serve),
    ("axum", axum::serve),
    ("actix-ws", actix_ws::serve),
];

/// Tells whoever started us that connections are accepted from now on.
fn announce(name: &str, address: SocketAddr) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{name} listening on {address}, pid {}", process::id())?;
    out.flush()
}

/// Runs a server of tokio's: on this thread alone, which is faster than a pool of one, or on a pool
/// that shares the work.
fn run_on_tokio<F: Future<Output = Outcome>>(
    plan: &Plan,
    server: impl FnOnce(TcpListener) -> F,
) -> Outcome {
    let mut builder = match plan.shard_count {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(plan.shard_count).enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(plan.address).await?;
        announce(plan.name, listener.local_addr()?)?;
        server(listener).await
    })
}

/// The next message to all; none if this member has missed some.
async fn next_said<M: Clone>(said: &mut Receiver<M>) -> Option<M> {
    match said.recv().await {
        Ok(message) => Some(message),
        Err(RecvError::Lagged(count)) => {
            eprintln!("a member that was {count} messages too far behind is closed");
            None
        }
        Err(RecvError::Closed) => None,
    }
}
