//! The seeds: what Robyn's documentation teaches about WebSockets, promise by promise, as a user
//! would write it. The names begin with the promise's number. Each test runs with 1, 2 and 4
//! shards, over real sockets, against tungstenite's client.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "what the tests share is public to each of them")]

mod common;

#[path = "seeds/addressing.rs"]
mod addressing;
#[path = "seeds/answers.rs"]
mod answers;
#[path = "seeds/awaiting.rs"]
mod awaiting;
#[path = "seeds/closing.rs"]
mod closing;
#[path = "seeds/ending.rs"]
mod ending;
#[path = "seeds/example.rs"]
mod example;
#[path = "seeds/injection.rs"]
mod injection;
#[path = "seeds/routing.rs"]
mod routing;
#[path = "seeds/talking.rs"]
mod talking;

use std::time::Duration;

use common::{Client, SHARD_COUNTS, eventually, within};
use peregrine::{Close, ConnectionId, Handler, Message, Reply, WebSocket};

/// How long a test may take in all.
const LIMIT: Duration = Duration::from_secs(90);

/// What `Seed` says last.
const GOODBYE: &str = "Goodbye world, from ws";

/// The first program of the seed page: three handlers, each with a fixed answer.
struct Seed;

impl Handler for Seed {
    type Session = ();

    fn on_connect(&self, _ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        "Connected to ws".into()
    }

    fn on_message<'m>(&self, _ws: &mut WebSocket<'_, ()>, _message: Message<'m>) -> Reply<'m> {
        "Hello world, from ws".into()
    }

    fn on_close(&self, _ws: &mut WebSocket<'_, ()>, _close: &Close) -> Reply<'static> {
        GOODBYE.into()
    }
}

/// Runs a test with 1, 2 and 4 shards, within one time limit.
fn on_every_shard_count(test: impl Fn(usize) + Send + 'static) {
    within(LIMIT, move || {
        for shard_count in SHARD_COUNTS {
            eprintln!("with {shard_count} shards");
            test(shard_count);
        }
    });
}

/// So many clients that every shard has at least one: no shard gets a third connection while
/// another has none.
fn enough_for(shard_count: usize) -> usize {
    2 * shard_count + 1
}

/// The id that the server sends as a connection's first message.
fn id_of(client: &mut Client) -> ConnectionId {
    client.text().parse().expect("an id")
}
