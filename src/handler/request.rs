//! [`Request`] and [`Upgrade`]: what [`on_upgrade`](super::Handler::on_upgrade) sees and decides.
//!
//! Knows a parsed request, routing's params and responses. Must not know sockets, shards, or how an
//! upgrade is carried out.

use std::any::Any;
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::Dependencies;
use super::later::{Later, Unawaited};
use crate::error::HeaderError;
use crate::http::{self, Head, Response};
use crate::routing::{Params, Query};

/// The HTTP request that asks for an upgrade, as [`on_upgrade`](super::Handler::on_upgrade) sees
/// it. It has been checked: it is a valid upgrade (RFC 6455 section 4.2.1) to this endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    head: Head<'r>,
    peer: SocketAddr,
    client: IpAddr,
    params: &'r Params,
    dependencies: &'r Dependencies,
}

impl<'r> Request<'r> {
    pub(crate) fn new(
        head: Head<'r>,
        peer: SocketAddr,
        client: IpAddr,
        params: &'r Params,
        dependencies: &'r Dependencies,
    ) -> Self {
        Self { head, peer, client, params, dependencies }
    }

    /// The method; always `GET`.
    #[must_use]
    pub fn method(&self) -> &'r str {
        self.head.method
    }

    /// The path, as sent: still percent-encoded, without the query.
    #[must_use]
    pub fn path(&self) -> &'r str {
        self.head.path
    }

    /// The first value of a query parameter, percent-decoded, `+` as space.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<Cow<'r, str>> {
        self.query_params().first(name)
    }

    /// All query parameters, in order.
    #[must_use]
    pub fn query_params(&self) -> Query<'r> {
        Query::new(self.head.query)
    }

    /// The first value of a query parameter, parsed; `None` if it is missing or malformed.
    #[must_use]
    pub fn query_as<T: FromStr>(&self, name: &str) -> Option<T> {
        self.query(name)?.parse().ok()
    }

    /// The value of a path parameter; see [`WebSocket::param`](crate::WebSocket::param).
    #[must_use]
    pub fn param(&self, name: &str) -> Option<Cow<'r, str>> {
        self.params.find(name)
    }

    /// The value of a path parameter, parsed; `None` if there is none, or it is malformed.
    #[must_use]
    pub fn param_as<T: FromStr>(&self, name: &str) -> Option<T> {
        self.param(name)?.parse().ok()
    }

    /// The nearest value of this type; see [`WebSocket::dependency`](crate::WebSocket::dependency).
    ///
    /// # Panics
    /// If there is none, with the type's name.
    #[must_use]
    pub fn dependency<T: Send + Sync + 'static>(&self) -> &'r T {
        self.dependencies.expect()
    }

    /// Like [`dependency`](Self::dependency); `None` if there is none.
    #[must_use]
    pub fn find_dependency<T: Send + Sync + 'static>(&self) -> Option<&'r T> {
        self.dependencies.find()
    }

    /// The value of this type that was given to the server; see
    /// [`WebSocket::global`](crate::WebSocket::global).
    ///
    /// # Panics
    /// If there is none, with the type's name.
    #[must_use]
    pub fn global<T: Send + Sync + 'static>(&self) -> &'r T {
        self.dependencies.expect_global()
    }

    /// The first value of a header, its name in any case; `None` also if it is not UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'r str> {
        self.head.first(name).and_then(|value| str::from_utf8(value).ok())
    }

    /// All headers, in order, as name and value.
    pub fn headers(&self) -> impl Iterator<Item = (&'r str, &'r [u8])> + use<'r> {
        self.head.headers.iter().map(|header| (header.name, header.value))
    }

    /// The host that the request is for, with its port if one is named, such as
    /// `example.com:8080`. It comes from the request's target if that is in absolute form
    /// (`GET https://example.com/chat`), else from the `Host` header (RFC 9112 section 3.2.2).
    /// Returns `None` if that is not UTF-8.
    #[must_use]
    pub fn host(&self) -> Option<&'r str> {
        self.head.host()
    }

    /// The value of a cookie (RFC 6265 section 5.4), as sent. Returns the first one of that name.
    /// A cookie that is not UTF-8 is left out; the others count.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&'r str> {
        let mut pairs = self.head.parts("Cookie", b';').filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The subprotocols that the client offers, in its order of preference
    /// (RFC 6455 section 4.1). Each of them can be the [answer](Upgrade::subprotocol).
    ///
    /// An offer is a name of visible ASCII characters without comma, quotation mark and backslash.
    /// The RFC allows tokens only, and browsers offer nothing else. Other clients also offer
    /// Base64 with its padding (`YWJjZA==`). What is no such name is left out; the others count.
    pub fn subprotocols(&self) -> impl Iterator<Item = &'r str> + Clone + use<'r> {
        self.head.subprotocols()
    }

    /// The address of the peer's socket: the client's, or that of the last proxy before the server.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// The client's address: the peer's, or what
    /// [trusted proxies](crate::ServerBuilder::trust_proxies) say. An IPv4 address is told as one,
    /// also if the socket serves both versions.
    #[must_use]
    pub fn client_ip(&self) -> IpAddr {
        self.client
    }
}

/// The decision about an upgrade.
///
/// ```
/// use peregrine::{Handler, Request, Response, Upgrade};
///
/// struct Members;
///
/// impl Handler for Members {
///     type Session = Option<String>;
///
///     fn on_upgrade(&self, request: &Request<'_>, session: &mut Option<String>) -> Upgrade {
///         *session = request.query("name").map(Into::into);
///         match session {
///             Some(_) => Upgrade::accept(),
///             None => Upgrade::reject(Response::new(401).with_text("Who are you?")),
///         }
///     }
/// }
/// ```
#[derive(Debug)]
#[must_use = "the decision counts only when it is returned"]
pub struct Upgrade(pub(crate) Decision);

#[derive(Debug)]
pub(crate) enum Decision {
    Accept(Acceptance),
    Reject(Response),
    Later(Box<Later<Upgrade>>),
    /// A header cannot be sent.
    Failed(HeaderError),
}

/// What an upgrade is granted with.
#[derive(Debug, Default)]
pub(crate) struct Acceptance {
    pub(crate) subprotocol: Subprotocol,
    pub(crate) headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// Takes the place of the session that was made for the request. Its type is not checked yet.
    pub(crate) session: Option<Box<dyn Any>>,
}

/// Which subprotocol is to be spoken.
#[derive(Debug, Default)]
pub(crate) enum Subprotocol {
    #[default]
    None,
    /// This one, which the handler takes for offered.
    Named(Box<str>),
    /// The first of these that is offered, if any is.
    Preferred(Vec<Box<str>>),
}

impl Subprotocol {
    /// The subprotocol that is answered: always one of those that the client offers, or it would
    /// fail the connection (RFC 6455 section 4.1). `Err` is the name that the handler took for
    /// offered.
    pub(crate) fn choose<'o>(
        self,
        mut offered: impl Iterator<Item = &'o str> + Clone,
    ) -> Result<Option<Box<str>>, Box<str>> {
        match self {
            Self::None => Ok(None),
            Self::Named(name) if offered.any(|offer| offer == &*name) => Ok(Some(name)),
            Self::Named(name) => Err(name),
            Self::Preferred(names) => {
                let mut names = names.into_iter();
                Ok(names.find(|name| offered.clone().any(|offer| offer == &**name)))
            }
        }
    }
}

impl Upgrade {
    /// Grants the upgrade.
    pub fn accept() -> Self {
        Self(Decision::Accept(Acceptance::default()))
    }

    /// Refuses the upgrade with this response; the connection is closed after it. A status alone
    /// (`reject(401)`) is a response; so is a text (`reject("not today")`). One that tells of
    /// success is sent as 403. Browsers tell pages neither status nor body.
    pub fn reject(response: impl Into<Response>) -> Self {
        Self(Decision::Reject(response.into().refusing()))
    }

    /// Decides when the future has resolved: authentication against a database, for example. It
    /// resolves to the decision, which may bring the [`session`](Self::session) along.
    ///
    /// The future is polled on the connection's own shard, and may be woken from any thread. It has
    /// what is left of [`Limits::handshake_timeout`](crate::Limits::handshake_timeout): then the
    /// request is refused with 503. The future is dropped when the peer ends its side or its time
    /// is over: it only answers a question. A panic in it refuses the request with 500. A future
    /// that needs the context of a runtime (tokio's timers and sockets) needs
    /// [`ServerBuilder::on_shard_thread`](crate::ServerBuilder::on_shard_thread).
    ///
    /// ```
    /// use peregrine::{Handler, Request, Response, Upgrade};
    ///
    /// struct Members;
    ///
    /// async fn is_member(token: String) -> bool {
    ///     token == "secret"
    /// }
    ///
    /// impl Handler for Members {
    ///     type Session = ();
    ///
    ///     fn on_upgrade(&self, request: &Request<'_>, _session: &mut ()) -> Upgrade {
    ///         let token = request.cookie("token").unwrap_or_default().to_owned();
    ///         Upgrade::later(async {
    ///             if is_member(token).await {
    ///                 Upgrade::accept()
    ///             } else {
    ///                 Upgrade::reject(Response::new(401))
    ///             }
    ///         })
    ///     }
    /// }
    /// ```
    pub fn later(future: impl Future<Output = Self> + 'static) -> Self {
        Self(Decision::Later(Box::new(Later::new(future))))
    }

    /// Lets a thread of the server's pool run what blocks, and then decides by its result, on the
    /// connection's shard. The wait for a free thread counts against
    /// [`Limits::handshake_timeout`](crate::Limits::handshake_timeout), as the work does. When that
    /// time is over, or the pool is full, the request is refused with 503 and `Retry-After`. Unlike
    /// that of [`Reply::offload`](crate::Reply::offload), work that has not begun by then, or when
    /// the peer has gone, is not begun.
    ///
    /// ```
    /// use peregrine::{Request, Response, Upgrade};
    ///
    /// fn on_upgrade(request: &Request<'_>) -> Upgrade {
    ///     let token = request.query("token").unwrap_or_default().into_owned();
    ///     Upgrade::offload(
    ///         move || std::fs::exists(format!("tokens/{token}")),
    ///         |found| match found {
    ///             Ok(true) => Upgrade::accept(),
    ///             Ok(false) => Upgrade::reject(Response::new(401)),
    ///             Err(_) => Upgrade::reject(Response::new(503)),
    ///         },
    ///     )
    /// }
    /// ```
    pub fn offload<R: Send + 'static>(
        work: impl FnOnce() -> R + Send + 'static,
        decide: impl FnOnce(R) -> Self + 'static,
    ) -> Self {
        Self(Decision::Later(Box::new(Later::offload(work, decide, Unawaited::Skip))))
    }

    /// Names the subprotocol that was chosen. It must be one that the client
    /// [offers](Request::subprotocols): another one would make it fail the connection
    /// (RFC 6455 section 4.1), so it is not sent, and that is logged. That goes for any text, also
    /// for one that is not the name of a subprotocol. On a rejection, and on a decision that comes
    /// later, it has no effect.
    pub fn subprotocol(self, name: &str) -> Self {
        self.speaks(Subprotocol::Named(name.into()))
    }

    /// Lists the subprotocols that the server speaks, best first: the first one that the client
    /// offers is chosen, none if it offers none of them.
    /// [`WebSocket::subprotocol`](crate::WebSocket::subprotocol) tells which. On a rejection, and
    /// on a decision that comes later, it has no effect.
    ///
    /// A browser that offers some and is answered none fails the connection, right after
    /// `on_connect`: so do not leave out this call if clients offer any, or reject those that offer
    /// none of yours.
    ///
    /// ```
    /// use peregrine::{Callbacks, Upgrade};
    ///
    /// let chat = Callbacks::<()>::new()
    ///     .on_upgrade(|_, _| Upgrade::accept().subprotocols(["chat.v2", "chat.v1"]))
    ///     .on_connect(|ws| match ws.subprotocol() {
    ///         Some(name) => format!("we speak {name}").into(),
    ///         None => "we speak plain text".into(),
    ///     });
    /// ```
    ///
    /// A text that is not the name of a subprotocol is never offered, and so never chosen.
    pub fn subprotocols<'n>(self, names: impl IntoIterator<Item = &'n str>) -> Self {
        self.speaks(Subprotocol::Preferred(names.into_iter().map(Into::into).collect()))
    }

    fn speaks(mut self, chosen: Subprotocol) -> Self {
        if let Decision::Accept(acceptance) = &mut self.0 {
            acceptance.subprotocol = chosen;
        }
        self
    }

    /// Replaces the session of the connection: for a decision that is made where the session
    /// cannot be reached. It must have the type that the handler's
    /// [`Session`](super::Handler::Session) has: with another one the request gets status 500, and
    /// that is logged. On a rejection, and on a decision that comes later, it has no effect.
    pub fn session<S: 'static>(mut self, session: S) -> Self {
        if let Decision::Accept(acceptance) = &mut self.0 {
            acceptance.session = Some(Box::new(session));
        }
        self
    }

    /// Adds a header to the response. Nothing that stands in `name` or `value` can add another one:
    /// a value may come from a client. On a decision that comes later it has no effect.
    ///
    /// The result becomes an `Upgrade` by `into()`. If the header was refused, the request then
    /// gets status 500, and the log says why. A function that returns the result adds several by
    /// `?`.
    ///
    /// ```
    /// use peregrine::{Callbacks, HeaderError, Request, Upgrade};
    ///
    /// let greeter = Callbacks::<()>::new().on_upgrade(|_request, _session| {
    ///     Upgrade::accept().header("Set-Cookie", "seen=1; HttpOnly").into()
    /// });
    ///
    /// fn decide(request: &Request<'_>) -> Result<Upgrade, HeaderError> {
    ///     let name = request.query("name").unwrap_or_default().into_owned();
    ///     Upgrade::accept().header("X-Name", name)?.header("X-Path", request.path().to_owned())
    /// }
    /// let mirror = Callbacks::<()>::new().on_upgrade(|request, _session| decide(request).into());
    /// ```
    ///
    /// # Errors
    /// As of [`Response::header`]. In an accepted upgrade also if the header is `Upgrade`,
    /// `Sec-WebSocket-Accept`, `-Extensions` or `-Protocol`, for which there is
    /// [`subprotocols`](Self::subprotocols).
    pub fn header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Result<Self, HeaderError> {
        let (name, value) = (name.into(), value.into());
        http::check_header(&name, &value, &http::FRAMING)?;
        match &mut self.0 {
            Decision::Accept(acceptance) => {
                http::check_header(&name, &value, &http::HANDSHAKE)?;
                acceptance.headers.push((name, value));
            }
            Decision::Reject(response) => response.push_header(name, value),
            Decision::Later(_) | Decision::Failed(_) => {}
        }
        Ok(self)
    }
}

impl From<Result<Self, HeaderError>> for Upgrade {
    /// A header that cannot be sent refuses the request with status 500, and is logged.
    fn from(decided: Result<Self, HeaderError>) -> Self {
        decided.unwrap_or_else(|error| Self(Decision::Failed(error)))
    }
}
