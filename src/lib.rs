//! **peregrine** is a WebSocket server to embed: you implement [`Handler`], it does the rest, on
//! every core.
//!
//! ```no_run
//! use peregrine::{Close, Handler, Message, Reply, Server, WebSocket};
//!
//! struct Chat;
//!
//! impl Handler for Chat {
//!     type Session = ();
//!
//!     fn on_connect(&self, ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
//!         format!("Welcome, {}", ws.id()).into()
//!     }
//!
//!     fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
//!         match message.as_text() {
//!             Some("quit") => {
//!                 ws.close();
//!                 "Closing connection".into()
//!             }
//!             _ => match ws.broadcast(message) {
//!                 Ok(()) => Reply::none(),
//!                 Err(error) => error.to_string().into(),
//!             },
//!         }
//!     }
//!
//!     fn on_close(&self, _ws: &mut WebSocket<'_, ()>, _close: &Close) -> Reply<'static> {
//!         "Goodbye".into()
//!     }
//! }
//!
//! fn main() -> Result<(), peregrine::Error> {
//!     Server::builder().websocket("/chat", Chat).bind("127.0.0.1:8080")?.run()
//! }
//! ```
//!
//! # The picture
//!
//! ```text
//!  kernel ─► listener ─► transport ─► handshake ─► lane / engine ─► handler ─► outbox ─► transport ─► kernel
//!              (shard)               (sans-IO: bytes in, events out)             │
//!                                                                                ├─► same shard: its outbox
//!  Hub (any thread) ───────────────────────────────► mailbox ─► shard ◄──────────┴─► other shards: their mailbox
//! ```
//!
//! A **shard** is one thread with its own epoll, its own listener (`SO_REUSEPORT`) and its own
//! connections. Messages cross between shards by nothing but bounded mailboxes. A whole
//! frame is unmasked where it lies in the shard's receive buffer and handed to your handler as a
//! borrowed [`Message`]; an echo copies its payload once, into the write, and allocates nothing.
//! Everything else of RFC 6455 is decided by [tungstenite](https://docs.rs/tungstenite).
//!
//! # Where to look
//!
//! | to | see |
//! | --- | --- |
//! | handle connections, messages, closing | [`Handler`], [`Callbacks`] |
//! | decide who comes in, and with what | [`Endpoint::with_upgrade`], [`Request`], [`Upgrade`] |
//! | answer at once, later, from a thread that may block | [`Reply`], [`WebSocket::later_then`] |
//! | reach others: one, all, a topic's subscribers | [`WebSocket`], [`Hub`] |
//! | know what became of a message | [`Delivery`], [`BroadcastDelivery`] |
//! | send or receive what is too large for memory | [`MessageWriter`], [`Handler::on_chunk`] |
//! | shut down, be replaced | [`ShutdownPlan`], [`Hub::shutdown`], [`ServerBuilder::readiness`] |
//! | put an app together: paths, limits | [`ServerBuilder`], [`Router`], [`Endpoint`] |
//!
//! # What is promised
//!
//! * **Delivery.** `Ok` from a send means accepted for delivery, in order; `Err` means that nothing
//!   was accepted, and why ([`SendError`]). What is accepted and cannot be delivered after all is
//!   counted ([`Hub::dropped_count`]).
//! * **Order.** See [`WebSocket`] and [`Hub`].
//! * **Bounds.** Everything that can grow has a limit, in [`Limits`].
//! * **Isolation.** A handler that panics loses its connection (1011), a client that breaks the
//!   protocol or reads too slowly loses its own; the others notice nothing.
//!
//! # What is logged
//!
//! The server writes to the [`log`](https://docs.rs/log) crate. Whatever a client can cause again
//! and again is bounded: each shard writes the first case of a kind at once, and then at most one
//! line of that kind in ten seconds, which gives the last case and says how many there were. A kind
//! is a reason, for one endpoint where there is one.
//!
//! * **error**: panics of handlers and destructors; mistakes in what `on_upgrade` grants.
//! * **warn**: refusals with 403 (with the `.allow_origin(..)` to write), 429 or 503; dropped
//!   connections; handlers that keep their shard for longer than [`Limits::slow_handler_after`]; a
//!   full pool; a listener without descriptors; too many topics.
//! * **info**: the server's other refusals: 400, 404, 405, 408, 426, 431.
//! * **debug**: rejections by `on_upgrade`; connections that the server closes, with code and
//!   reason.
//!
//! A line names the client's address, and the endpoint or the path that it asked for, escaped, at
//! most 128 bytes of it. Queries and headers are not logged, for they may hold secrets; only the
//! origin of a refused page is.
//!
//! # Features
//!
//! * `serde` (off): messages as JSON, by [serde](https://docs.rs/serde): `Message::json`,
//!   `Reply::json`, `Json`, `WebSocket::send_json`.
//! * `testing` (off): the test kit, `peregrine::testing`. It runs your handlers without sockets,
//!   threads or waiting. Enable it among your `dev-dependencies` only: reads and writes become a
//!   little slower by it.
//!
//! Everything else is always on. Linux is what it is built and tested for.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod clock;
mod config;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod handler;
mod http;
mod hub;
#[cfg(feature = "__internals")]
#[doc(hidden)]
pub mod internals;
mod message;
mod panics;
mod protocol;
mod routing;
mod server;
mod shard;
mod sync;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
mod transport;

pub use self::config::{Limits, OverflowPolicy};
pub use self::error::{Error, HeaderError, ParamError, SendError};
#[cfg(feature = "serde")]
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
pub use self::handler::Json;
pub use self::handler::{
    Accept, Callbacks, Handler, IntoUpgrade, Reply, Request, Upgrade, WebSocket,
};
pub use self::http::Response;
pub use self::hub::{
    BroadcastDelivery, BroadcastReport, ConnectionId, Delivery, Hub, MessageWriter, ParseIdError,
    Piece, ShutdownPlan, ShutdownReport,
};
pub use self::message::{AsMessage, Chunk, Close, CloseCode, ClosedBy, Message};
pub use self::routing::Query;
pub use self::server::{
    Endpoint, Router, RunningServer, Server, ServerBuilder, ShardEnded, ShardThread,
};

/// The README's examples, compiled with the doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;

#[cfg(test)]
mod cases;
