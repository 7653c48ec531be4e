//! [`Upgrade`]: the decision about an upgrade. [`Accept`]: what it is granted with.
//!
//! Knows responses, sessions, and decisions that come later. Must not know requests, sockets or
//! shards, nor how an upgrade is carried out.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use super::later::{Later, Unawaited};
use crate::error::{HeaderError, ParamError, Refusal};
use crate::http::{self, Response};

/// The decision about an upgrade to an endpoint whose sessions are of the type `S`: to accept it
/// with a session, to reject it with a response, or to decide [later](Self::later).
///
/// A function that decides returns whatever becomes one: an [`Accept`], a [`Response`], or a
/// `Result` of the two, so that `?` works. A [`HeaderError`] becomes status 500, and the log says
/// why; a [`ParamError`] becomes status 400.
///
/// ```
/// use peregrine::{Accept, Callbacks, Endpoint, Request, Response, Server};
///
/// struct Member {
///     name: String,
/// }
///
/// fn authenticate(request: &Request<'_>) -> Result<Accept<Member>, Response> {
///     let name = request.query("name").ok_or(Response::new(401).with_text("Who are you?"))?;
///     Ok(Accept::new(Member { name: name.to_owned() }))
/// }
///
/// let members = Callbacks::with_upgrade(authenticate)
///     .on_connect(|ws| format!("Welcome, {}", ws.session().name).into());
/// let server = Server::builder().websocket("/members", members).bind("127.0.0.1:0")?;
/// # Ok::<(), peregrine::Error>(())
/// ```
#[must_use = "the decision counts only when it is returned"]
pub struct Upgrade<S>(Decision, PhantomData<fn() -> S>);

/// An [`Upgrade`] without the type of its session.
#[derive(Debug)]
pub(crate) enum Decision {
    Accept(Acceptance),
    Reject(Response),
    Later(Box<Later<Self>>),
    /// A header cannot be sent.
    Failed(HeaderError),
}

/// What an upgrade is granted with.
#[derive(Debug)]
pub(crate) struct Acceptance {
    pub(crate) session: Box<dyn Any>,
    pub(crate) subprotocol: Subprotocol,
    pub(crate) headers: Headers,
}

type Headers = Vec<(Cow<'static, str>, Cow<'static, str>)>;

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

/// An upgrade that is granted: with a session, and with what the response says besides.
///
/// ```
/// use peregrine::{Accept, HeaderError, Request};
///
/// fn accept(request: &Request<'_>) -> Result<Accept<()>, HeaderError> {
///     let name = request.query("name").unwrap_or_default().to_owned();
///     Accept::new(()).subprotocols(["chat.v2", "chat.v1"]).header("X-Name", name)
/// }
/// ```
#[derive(Debug, Default)]
#[must_use = "an upgrade is granted only by returning it"]
pub struct Accept<S> {
    session: S,
    subprotocol: Subprotocol,
    headers: Headers,
}

impl<S> Accept<S> {
    /// Grants the upgrade. The connection begins with this session.
    pub fn new(session: S) -> Self {
        Self { session, subprotocol: Subprotocol::None, headers: Headers::new() }
    }

    /// Names the subprotocol that was chosen. It must be one that the client
    /// [offers](crate::Request::subprotocols): another one would make it fail the connection
    /// (RFC 6455 section 4.1), so it is not sent, and that is logged. That goes for any text, also
    /// for one that is not the name of a subprotocol.
    ///
    /// ```
    /// use peregrine::{Accept, Request};
    ///
    /// fn accept(request: &Request<'_>) -> Accept<()> {
    ///     match request.subprotocols().find(|name| name.starts_with("chat.")) {
    ///         Some(name) => Accept::new(()).subprotocol(name),
    ///         None => Accept::new(()),
    ///     }
    /// }
    /// ```
    pub fn subprotocol(mut self, name: &str) -> Self {
        self.subprotocol = Subprotocol::Named(name.into());
        self
    }

    /// Lists the subprotocols that the server speaks, best first: the first one that the client
    /// offers is chosen, none if it offers none of them.
    /// [`WebSocket::subprotocol`](crate::WebSocket::subprotocol) returns it.
    ///
    /// A browser that offers some and is answered none fails the connection, right after
    /// `on_connect`: so do not leave out this call if clients offer any, or reject those that offer
    /// none of yours.
    ///
    /// ```
    /// use peregrine::{Accept, Callbacks};
    ///
    /// let chat = Callbacks::with_upgrade(|_request| {
    ///     Accept::new(()).subprotocols(["chat.v2", "chat.v1"])
    /// })
    /// .on_connect(|ws| match ws.subprotocol() {
    ///     Some(name) => format!("we speak {name}").into(),
    ///     None => "we speak plain text".into(),
    /// });
    /// ```
    ///
    /// A text that is not the name of a subprotocol is never offered, and so never chosen.
    pub fn subprotocols<'n>(mut self, names: impl IntoIterator<Item = &'n str>) -> Self {
        self.subprotocol = Subprotocol::Preferred(names.into_iter().map(Into::into).collect());
        self
    }

    /// Adds a header to the response. Nothing that stands in `name` or `value` can add another one:
    /// a value may come from a client.
    ///
    /// ```
    /// use peregrine::{Accept, HeaderError};
    ///
    /// let seen = Accept::new(()).header("Set-Cookie", "seen=1; HttpOnly")?;
    /// let refused = seen.header("X-Name", "a\r\nSet-Cookie: stolen=1");
    /// assert_eq!(refused.err(), Some(HeaderError::Value("X-Name".into())));
    /// # Ok::<(), HeaderError>(())
    /// ```
    ///
    /// # Errors
    /// As of [`Response::header`]; also if the header is `Upgrade`, `Sec-WebSocket-Accept`,
    /// `-Extensions` or `-Protocol`, for which there is [`subprotocols`](Self::subprotocols).
    pub fn header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Result<Self, HeaderError> {
        let (name, value) = (name.into(), value.into());
        http::check_header(&name, &value, &http::FRAMING)?;
        http::check_header(&name, &value, &http::HANDSHAKE)?;
        self.headers.push((name, value));
        Ok(self)
    }
}

impl<S: 'static> Upgrade<S> {
    /// Grants the upgrade. The connection begins with this session. An [`Accept`] adds more.
    ///
    /// ```
    /// use peregrine::{Callbacks, Upgrade};
    ///
    /// let open = Callbacks::with_upgrade(|request| match request.cookie("token") {
    ///     Some(token) => Upgrade::accept(token.to_owned()),
    ///     None => Upgrade::reject(401),
    /// });
    /// ```
    pub fn accept(session: S) -> Self {
        Accept::new(session).into_upgrade()
    }

    /// Refuses the upgrade with this response; the connection is closed after it. A status alone
    /// (`reject(401)`) is a response; so is a text (`reject("not today")`). A status that means
    /// success is sent as 403. Browsers show pages neither status nor body.
    pub fn reject(response: impl Into<Response>) -> Self {
        Self::of(Decision::Reject(response.into().refusing()))
    }

    /// Decides when the future has resolved: authentication against a database, for example.
    ///
    /// The future is polled on the connection's own shard, and may be woken from any thread. It has
    /// what is left of [`Limits::handshake_timeout`](crate::Limits::handshake_timeout): then the
    /// request is refused with 503. The future is dropped when the peer ends its side or its time
    /// is over: it only answers a question. A panic in it refuses the request with 500. A future
    /// that needs the context of a runtime (tokio's timers and sockets) needs
    /// [`ServerBuilder::on_shard_thread`](crate::ServerBuilder::on_shard_thread).
    ///
    /// ```
    /// use peregrine::{Accept, Callbacks, Response, Upgrade};
    ///
    /// async fn member(token: String) -> Option<String> {
    ///     (token == "secret").then(|| "Alice".to_owned())
    /// }
    ///
    /// let members = Callbacks::with_upgrade(|request| {
    ///     let token = request.cookie("token").unwrap_or_default().to_owned();
    ///     Upgrade::later(async {
    ///         member(token).await.map(Accept::new).ok_or(Response::new(401))
    ///     })
    /// })
    /// .on_connect(|ws| format!("Welcome, {}", ws.session()).into());
    /// ```
    pub fn later<F>(future: F) -> Self
    where
        F: Future<Output: IntoUpgrade<Session = S>> + 'static,
    {
        let future = async move { future.await.into_upgrade().0 };
        Self::of(Decision::Later(Box::new(Later::new(future))))
    }

    /// Lets a thread of the server's pool run work that blocks, whose result decides.
    ///
    /// The wait for a free thread counts against
    /// [`Limits::handshake_timeout`](crate::Limits::handshake_timeout), as the work does. When that
    /// time is over, or the pool is full, the request is refused with 503 and `Retry-After`. Unlike
    /// that of [`Reply::offload`](crate::Reply::offload), work that has not begun by then, or when
    /// the peer has gone, is not begun.
    ///
    /// ```
    /// use peregrine::{Accept, Callbacks, Response, Upgrade};
    ///
    /// let members = Callbacks::with_upgrade(|request| {
    ///     let token = request.query("token").unwrap_or_default().to_owned();
    ///     Upgrade::offload(move || match std::fs::exists(format!("tokens/{token}")) {
    ///         Ok(true) => Ok(Accept::new(token)),
    ///         Ok(false) => Err(Response::new(401)),
    ///         Err(_) => Err(Response::new(503)),
    ///     })
    /// });
    /// ```
    pub fn offload<R>(work: impl FnOnce() -> R + Send + 'static) -> Self
    where
        R: IntoUpgrade<Session = S> + Send + 'static,
    {
        Self::offload_then(work, R::into_upgrade)
    }

    /// Like [`offload`](Self::offload); `decide` makes the decision of the result, on the
    /// connection's shard. It may use what does not change threads, as a session may be.
    ///
    /// ```
    /// use std::rc::Rc;
    ///
    /// use peregrine::{Callbacks, Upgrade};
    ///
    /// let greeted = Callbacks::with_upgrade(|_request| {
    ///     let read = || std::fs::read_to_string("greeting.txt");
    ///     Upgrade::offload_then(read, |text| Upgrade::accept(Rc::new(text.unwrap_or_default())))
    /// });
    /// ```
    pub fn offload_then<T: Send + 'static, R: IntoUpgrade<Session = S>>(
        work: impl FnOnce() -> T + Send + 'static,
        decide: impl FnOnce(T) -> R + 'static,
    ) -> Self {
        let decide = |value| decide(value).into_upgrade().0;
        Self::of(Decision::Later(Box::new(Later::offload(work, decide, Unawaited::Skip))))
    }

    fn of(decision: Decision) -> Self {
        Self(decision, PhantomData)
    }

    /// The decision, its session's type forgotten.
    pub(crate) fn erase(self) -> Decision {
        self.0
    }
}

impl Decision {
    pub(crate) fn refuse(refusal: Refusal) -> Self {
        Self::Reject(refusal.into())
    }
}

impl<S> fmt::Debug for Upgrade<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Upgrade").field(&self.0).finish()
    }
}

/// Whatever decides about an upgrade: an [`Upgrade`], an [`Accept`], or a `Result` of one of them
/// and of what rejects (a [`Response`], a [`HeaderError`], a [`ParamError`]).
///
/// ```
/// use peregrine::{Accept, IntoUpgrade, Response};
///
/// fn decide(name: Option<&str>) -> Result<Accept<String>, Response> {
///     Ok(Accept::new(name.ok_or(Response::new(401))?.to_owned()))
/// }
/// let upgrade = decide(Some("Alice")).into_upgrade();
/// ```
pub trait IntoUpgrade {
    /// The type of the session of an accepted connection.
    type Session: 'static;

    /// The decision.
    fn into_upgrade(self) -> Upgrade<Self::Session>;
}

impl<S: 'static> IntoUpgrade for Upgrade<S> {
    type Session = S;

    fn into_upgrade(self) -> Self {
        self
    }
}

impl<S: 'static> IntoUpgrade for Accept<S> {
    type Session = S;

    fn into_upgrade(self) -> Upgrade<S> {
        let Self { session, subprotocol, headers } = self;
        let session = Box::new(session);
        Upgrade::of(Decision::Accept(Acceptance { session, subprotocol, headers }))
    }
}

impl<A: IntoUpgrade, E: Into<Upgrade<A::Session>>> IntoUpgrade for Result<A, E> {
    type Session = A::Session;

    fn into_upgrade(self) -> Upgrade<A::Session> {
        self.map_or_else(E::into, A::into_upgrade)
    }
}

impl<S: 'static> From<Response> for Upgrade<S> {
    fn from(response: Response) -> Self {
        Self::reject(response)
    }
}

impl<S: 'static> From<HeaderError> for Upgrade<S> {
    /// Refuses the request with status 500; the log says why.
    fn from(error: HeaderError) -> Self {
        Self::of(Decision::Failed(error))
    }
}

impl<S: 'static> From<ParamError> for Upgrade<S> {
    /// Refuses the request with status 400.
    fn from(error: ParamError) -> Self {
        Self::reject(Response::from(error))
    }
}
