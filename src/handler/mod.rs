//! The API that applications are written against: [`Handler`], [`WebSocket`], [`Reply`],
//! [`Request`], [`Upgrade`], [`Callbacks`].
//!
//! Knows messages and what can be asked of a connection. Must not know sockets, shards or
//! tungstenite: handlers reach the shard through [`Reach`].

mod callbacks;
mod check;
mod context;
mod dependencies;
mod granted;
mod later;
mod reach;
mod reply;
mod request;
mod upgrade;
mod websocket;

pub use self::callbacks::Callbacks;
pub(crate) use self::check::{Check, Place};
pub(crate) use self::context::{Context, typed};
pub(crate) use self::dependencies::{Dependencies, RequiredType, Values};
pub(crate) use self::granted::GrantedRequest;
pub(crate) use self::later::{Job, Later};
pub(crate) use self::reach::Reach;
#[cfg(feature = "serde")]
pub use self::reply::Json;
pub use self::reply::Reply;
pub(crate) use self::reply::Then;
pub use self::request::Request;
pub use self::upgrade::{Accept, IntoUpgrade, Upgrade};
pub(crate) use self::upgrade::{Acceptance, Decision};
pub use self::websocket::WebSocket;
use crate::message::{Chunk, Close, Message};

/// An application's behaviour at one endpoint.
///
/// One value serves all connections on all shards, so it is `Sync`; what belongs to one connection
/// lives in its [`Session`](Self::Session), which never leaves its shard and needs no lock.
///
/// For one connection the calls come one after another, on one thread: `on_connect`, any number of
/// `on_message` (or `on_chunk`) and `on_drain`, and exactly one `on_close`. A call should return
/// soon: the other connections of the shard wait. A panic closes its own connection with 1011 and
/// nothing else.
///
/// ```
/// use peregrine::{Handler, Message, Reply, WebSocket};
///
/// struct Counter;
///
/// impl Handler for Counter {
///     type Session = u64;
///
///     fn on_message<'m>(&self, ws: &mut WebSocket<'_, u64>, _: Message<'m>) -> Reply<'m> {
///         *ws.session_mut() += 1;
///         format!("that was message {}", ws.session()).into()
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// The application's state for one connection. Each connection begins with the default value;
    /// where another one is wanted, or the type has none,
    /// [`Endpoint::with_upgrade`](crate::Endpoint::with_upgrade) makes it when the upgrade is
    /// granted.
    type Session: 'static;

    /// The connection is open and a member of its endpoint. What is returned is sent to it.
    fn on_connect(&self, ws: &mut WebSocket<'_, Self::Session>) -> Reply<'static> {
        let _ = ws;
        Reply::none()
    }

    /// A whole message came. What is returned answers it. Ignores it by default.
    fn on_message<'m>(
        &self,
        ws: &mut WebSocket<'_, Self::Session>,
        message: Message<'m>,
    ) -> Reply<'m> {
        let _ = (ws, message);
        Reply::none()
    }

    /// Whether messages are wanted in pieces, while they arrive, and not whole: then every message
    /// comes through [`on_chunk`](Self::on_chunk), none through
    /// [`on_message`](Self::on_message). No by default.
    ///
    /// It is for uploads: a whole message is held in memory up to
    /// [`Limits::max_message_bytes`](crate::Limits::max_message_bytes), of one in pieces the server
    /// holds nothing but the shard's receive buffer. The limits on sizes still count: raise
    /// `max_message_bytes` and `max_frame_bytes` to what one upload may be.
    ///
    /// The answer must always be the same; it is asked for again and again.
    fn receives_chunks(&self) -> bool {
        false
    }

    /// A piece of a message came. What is returned is sent at once, as a message of its own; most
    /// handlers answer the last piece only. Ignores it by default.
    ///
    /// What breaks the protocol later in a message (a text that is not UTF-8, a size above its
    /// limit) ends the connection after pieces of that message were seen: only the last piece
    /// shows that all was well.
    ///
    /// ```
    /// use peregrine::{Chunk, Handler, Reply, WebSocket};
    ///
    /// struct Upload;
    ///
    /// impl Handler for Upload {
    ///     type Session = u64;
    ///
    ///     fn receives_chunks(&self) -> bool {
    ///         true
    ///     }
    ///
    ///     fn on_chunk<'m>(
    ///         &self,
    ///         ws: &mut WebSocket<'_, u64>,
    ///         chunk: Chunk<'m>,
    ///     ) -> Reply<'m> {
    ///         if chunk.is_first() {
    ///             *ws.session_mut() = 0;
    ///         }
    ///         *ws.session_mut() += chunk.as_bytes().len() as u64;
    ///         match chunk.is_last() {
    ///             true => format!("{} bytes", ws.session()).into(),
    ///             false => Reply::none(),
    ///         }
    ///     }
    /// }
    /// ```
    fn on_chunk<'m>(&self, ws: &mut WebSocket<'_, Self::Session>, chunk: Chunk<'m>) -> Reply<'m> {
        let _ = (ws, chunk);
        Reply::none()
    }

    /// What waited for this client was above the high-water mark, as
    /// [`has_backpressure`](WebSocket::has_backpressure) says, and has fallen to the low-water
    /// mark: time to go on sending.
    fn on_drain(&self, ws: &mut WebSocket<'_, Self::Session>) {
        let _ = ws;
    }

    /// The connection ends. This is called exactly once for every `on_connect`, for every kind of
    /// end: a Close of either side, the end or a reset of TCP, an abort.
    ///
    /// The connection has left its endpoint: no broadcast reaches it any more, and what is sent to
    /// it is refused as [`Closed`](crate::SendError::Closed); others can be reached as ever. What
    /// is returned is sent before the server's Close frame, if the connection can still carry it.
    ///
    /// If an answer [comes later](Reply::later), or a [`MessageWriter`](crate::MessageWriter) is
    /// not finished, the call waits for that, for at most
    /// [`Limits::close_timeout`](crate::Limits::close_timeout).
    ///
    /// `on_close` may leave work to be done itself: [`Reply::offload`] and [`Reply::later`] work
    /// here in every end of a connection, also if nothing can be sent any more. The work has
    /// `Limits::close_timeout` anew; the connection counts as one of the server until then.
    fn on_close(&self, ws: &mut WebSocket<'_, Self::Session>, close: &Close) -> Reply<'static> {
        let _ = (ws, close);
        Reply::none()
    }
}
