//! What can go wrong, and who is to blame: [`Error`] (the embedder's start-up), [`SendError`] (a
//! message that was not accepted), [`ParamError`] (a parameter that cannot be parsed),
//! [`HeaderError`] (a header that cannot be sent), `Violation` (the peer misbehaved), `Refusal` (a
//! request that is not granted). The tables from a fault to what goes on the wire stand here and
//! nowhere else.
//!
//! Knows close codes and HTTP statuses. Must not know connections, requests, or how an error is
//! sent.

use std::net::SocketAddr;
use std::str::FromStr;
use std::{fmt, io};

use crate::message::CloseCode;

/// Why a server could not be built or run.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something: a thread, a descriptor, the resolution of a name.
    Io(io::Error),
    /// An address cannot be bound. If its port is taken ([`io::ErrorKind::AddrInUse`]), the text
    /// says how servers [share](crate::ServerBuilder::share_port) one.
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why the operating system refused it.
        error: io::Error,
    },
    /// The limits contradict one another; the text is the rule that they break.
    Limits(&'static str),
    /// A path cannot be served: it is malformed, or it is taken by another route.
    Path {
        /// The path as it was given.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The adjusted limits of an endpoint contradict one another, or differ in what counts for the
    /// server as a whole.
    EndpointLimits {
        /// The endpoint's full path.
        path: String,
        /// The rule that they break.
        rule: &'static str,
    },
    /// A value that was [required](crate::Router::requires) was given neither to the endpoint, nor
    /// to a router around it, nor to the server.
    Dependency {
        /// The full path of the endpoint that would lack it.
        path: String,
        /// The type of the value.
        type_name: &'static str,
    },
    /// An origin that is to be allowed and that no browser sends.
    Origin {
        /// The origin as it was given.
        origin: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A proxy that is to be trusted is neither an address nor a network such as `10.0.0.0/8`.
    Proxy(String),
    /// A header of a page cannot be sent.
    Header(HeaderError),
    /// More shards than a [`ConnectionId`](crate::ConnectionId) can name (4096), or none.
    Shards(usize),
    /// A closure given to [`ServerBuilder::on_shard_thread`](crate::ServerBuilder::on_shard_thread)
    /// panicked on the thread of this shard.
    ShardThread(usize),
    /// A shard's thread panicked: a bug in this crate, never in a handler.
    ShardPanicked,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Bind { address, error } => {
                write!(f, "the address {address} cannot be bound: {error}")?;
                if error.kind() == io::ErrorKind::AddrInUse {
                    f.write_str(
                        "; another server listens there, and servers share a port only if each of \
                         them asks for it by ServerBuilder::share_port()",
                    )?;
                }
                Ok(())
            }
            Self::Limits(rule) => write!(f, "the limits break the rule: {rule}"),
            Self::Path { path, problem } => {
                write!(f, "the path {path:?} cannot be served: {problem}")
            }
            Self::EndpointLimits { path, rule } => {
                write!(f, "the limits of the endpoint {path:?} break the rule: {rule}")
            }
            Self::Dependency { path, type_name } => {
                write!(f, "the endpoint {path:?} requires a dependency of the type {type_name}")
            }
            Self::Origin { origin, problem } => {
                write!(f, "the origin {origin:?} cannot be allowed: {problem}")
            }
            Self::Proxy(network) => {
                write!(f, "the proxy {network:?} is neither an address nor a network")
            }
            Self::Header(error) => error.fmt(f),
            Self::Shards(count) => write!(f, "{count} shards: there must be between 1 and 4096"),
            Self::ShardThread(shard) => {
                write!(f, "a closure given to on_shard_thread panicked for shard {shard}")
            }
            Self::ShardPanicked => f.write_str("a shard's thread panicked"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) | Self::Bind { error, .. } => Some(error),
            Self::Header(error) => Some(error),
            _ => None,
        }
    }
}

impl From<HeaderError> for Error {
    fn from(error: HeaderError) -> Self {
        Self::Header(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Why a message or a subscription was not accepted. Nothing of it was or will be done.
///
/// ```
/// use peregrine::{SendError, WebSocket};
///
/// fn join(ws: &WebSocket<'_, ()>, topic: &str) -> &'static str {
///     match ws.subscribe(topic) {
///         Ok(()) => "welcome",
///         Err(SendError::TooManyTopics | SendError::NameTooLong) => "no such room",
///         Err(_) => "not now",
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SendError {
    /// There is no such connection any more, or there never was.
    Gone,
    /// The target's outbox, or the mailbox on the way to it, is full. Try again later, or not.
    Overloaded,
    /// This connection is being closed: the handler's return value is the last that it carries.
    Closed,
    /// The server shuts down.
    ShuttingDown,
    /// No endpoint is served at that path.
    NoEndpoint,
    /// The connection has
    /// [`Limits::max_topics_per_connection`](crate::Limits::max_topics_per_connection) topics.
    TooManyTopics,
    /// The name of a topic has more than 1024 bytes.
    NameTooLong,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "the connection is gone",
            Self::Overloaded => "the receiver is overloaded",
            Self::Closed => "the connection is being closed",
            Self::ShuttingDown => "the server is shutting down",
            Self::NoEndpoint => "no endpoint is served at this path",
            Self::TooManyTopics => "the connection has too many topics",
            Self::NameTooLong => "the name of the topic is too long",
        })
    }
}

impl std::error::Error for SendError {}

/// Why a parameter of the query or the path could not be parsed.
///
/// ```
/// use peregrine::ParamError;
///
/// assert_eq!(ParamError::Missing.to_string(), "the parameter is missing");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParamError {
    /// There is no such parameter.
    Missing,
    /// Its value is not of the type that was asked for.
    Malformed,
}

impl ParamError {
    pub(crate) fn parse<T: FromStr>(value: Option<&str>) -> Result<T, Self> {
        value.ok_or(Self::Missing)?.parse().map_err(|_| Self::Malformed)
    }
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "the parameter is missing",
            Self::Malformed => "the parameter is malformed",
        })
    }
}

impl std::error::Error for ParamError {}

/// Why a header was not added to an answer. The text in it is the header's name, at most 64
/// characters of it. The value is left out: it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// The name is not a token (RFC 9110 section 5.6.2).
    Name(String),
    /// The value holds a control character other than a tab (RFC 9110 section 5.5). With a line
    /// break, the author of the value could add headers, or a body.
    Value(String),
    /// The server itself writes this header.
    Reserved(String),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name:?} is not the name of a header"),
            Self::Value(name) => {
                write!(f, "the value of the header {name:?} holds a control character")
            }
            Self::Reserved(name) => write!(f, "the server itself writes the header {name:?}"),
        }
    }
}

impl std::error::Error for HeaderError {}

/// How a peer broke RFC 6455 or a limit. [`Violation::close_code`] is the table to the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A reserved bit without an extension (section 5.2).
    ReservedBits,
    /// A reserved opcode (section 5.2).
    ReservedOpcode,
    /// A frame without a mask (section 5.1).
    Unmasked,
    /// A control frame of more than 125 bytes, or in fragments (section 5.5).
    ControlFrame,
    /// A continuation of nothing, or a new message inside another (section 5.4).
    Fragmentation,
    /// A Close frame of one byte (section 5.5.1).
    CloseFrame,
    /// Any other breach that the engine found.
    Protocol,
    /// Text or a close reason that is not UTF-8 (section 8.1).
    Utf8,
    /// A frame or a message above its limit.
    TooBig,
    /// More fragments in one message than allowed.
    TooManyFragments,
    /// More pings, pongs and empty fragments in a second than allowed.
    TooManyIdleFrames,
}

impl Violation {
    /// The close code that the peer gets, and the reason that goes with it.
    pub(crate) fn close_code(self) -> (CloseCode, &'static str) {
        match self {
            Self::ReservedBits => (CloseCode::PROTOCOL_ERROR, "reserved bits are set"),
            Self::ReservedOpcode => (CloseCode::PROTOCOL_ERROR, "reserved opcode"),
            Self::Unmasked => (CloseCode::PROTOCOL_ERROR, "frame is not masked"),
            Self::ControlFrame => (CloseCode::PROTOCOL_ERROR, "malformed control frame"),
            Self::Fragmentation => (CloseCode::PROTOCOL_ERROR, "fragments out of order"),
            Self::CloseFrame => (CloseCode::PROTOCOL_ERROR, "malformed Close frame"),
            Self::Protocol => (CloseCode::PROTOCOL_ERROR, "protocol error"),
            Self::Utf8 => (CloseCode::INVALID_DATA, "text is not UTF-8"),
            Self::TooBig => (CloseCode::TOO_BIG, "message is too big"),
            Self::TooManyFragments => (CloseCode::POLICY, "too many fragments"),
            Self::TooManyIdleFrames => (CloseCode::POLICY, "too many frames without data"),
        }
    }
}

/// Why a request is not granted. [`Refusal::status`] is the table to the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refusal {
    /// Not HTTP/1, or malformed; the text says what is wrong.
    BadRequest(&'static str),
    /// Nothing is served at the path.
    NotFound,
    /// A method that the path does not serve.
    MethodNotAllowed,
    /// The head did not arrive in time.
    Timeout,
    /// A WebSocket endpoint was asked for without an upgrade, or in another version.
    UpgradeRequired,
    /// The head is too large.
    HeadTooLarge,
    /// `on_upgrade` panicked, or decided on what cannot be done.
    Internal,
    /// Too many connections, too much to do, or the server shuts down.
    Unavailable,
    /// `on_upgrade` has not decided in time.
    Undecided,
    /// `on_upgrade` has offloaded work, and too much of it is waiting.
    PoolFull,
    /// The client's address has as many connections as it may.
    TooManyConnections,
    /// The client's address has upgraded too often in the last second.
    TooManyUpgrades,
}

impl Refusal {
    /// The status, and the sentence that stands in the body.
    pub(crate) fn status(self) -> (u16, &'static str) {
        match self {
            Self::BadRequest(why) => (400, why),
            Self::NotFound => (404, "Nothing is served at this path."),
            Self::MethodNotAllowed => (405, "Only GET is served at this path."),
            Self::Timeout => (408, "The request did not arrive in time."),
            Self::UpgradeRequired => {
                (426, "This path speaks WebSocket: upgrade with Sec-WebSocket-Version 13.")
            }
            Self::TooManyConnections => (429, "Too many connections from this address."),
            Self::TooManyUpgrades => (429, "Too many upgrades from this address; try again later."),
            Self::HeadTooLarge => (431, "The request head is too large."),
            Self::Internal => (500, "The upgrade could not be decided."),
            Self::Undecided => (503, "The upgrade was not decided in time; try again later."),
            Self::PoolFull => (503, "Too many upgrades wait to be decided; try again later."),
            Self::Unavailable => (503, "The server takes no more connections; try again later."),
        }
    }
}
