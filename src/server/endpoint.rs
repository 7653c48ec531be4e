//! [`Endpoint`]: a handler, and what holds for it alone.
//!
//! Knows the handler, erased to its type, and the settings. Must not know its path, nor what it
//! inherits.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use super::settings::Settings;
use crate::config::Limits;
use crate::handler::{
    Callbacks, Check, Handler, IntoUpgrade, Place, Request, RequiredType, Upgrade,
};
use crate::http::Origins;
use crate::shard::{ErasedHandler, Served};

/// A [`Handler`], with what holds for it alone: nearer than anything that a
/// [`Router`](crate::Router) says. A handler that needs nothing of the kind is given to
/// [`websocket`](crate::Router::websocket) as it is.
///
/// ```
/// use peregrine::{Callbacks, Endpoint, Server};
///
/// let upload = Callbacks::<()>::new().on_message(|ws, message| {
///     let page: u32 = ws.query_as("page").unwrap_or_default();
///     format!("{} bytes for page {page}", message.len()).into()
/// });
/// let upload = Endpoint::new(upload)
///     .required_query::<u32>("page")
///     .adjust_limits(|limits| {
///         limits.max_message_bytes = 64 << 20;
///         limits.max_frame_bytes = 64 << 20;
///     });
/// let server = Server::builder().websocket("/upload", upload).bind("127.0.0.1:0")?;
/// # Ok::<(), peregrine::Error>(())
/// ```
#[must_use = "an endpoint serves nobody until it has a path"]
pub struct Endpoint {
    pub(super) handler: Box<dyn ErasedHandler>,
    pub(super) settings: Settings,
    pub(super) checks: Vec<Check>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("checks", &self.checks).finish_non_exhaustive()
    }
}

impl<H: Handler<Session: Default>> From<H> for Endpoint {
    fn from(handler: H) -> Self {
        Self::with_upgrade(handler, |_request| Upgrade::accept(Default::default()))
    }
}

impl<S: 'static> From<Callbacks<S>> for Endpoint {
    fn from(callbacks: Callbacks<S>) -> Self {
        let (on_upgrade, handler) = callbacks.into_parts();
        Self::with_upgrade(handler, on_upgrade)
    }
}

impl Endpoint {
    /// An endpoint at which this handler serves: a [`Handler`] or [`Callbacks`]. A handler accepts
    /// all upgrades, and each of its connections begins with the default session.
    ///
    /// ```
    /// use peregrine::{Endpoint, Handler, Server};
    ///
    /// struct Silent;
    ///
    /// impl Handler for Silent {
    ///     type Session = ();
    /// }
    ///
    /// let silent = Endpoint::new(Silent).any_origin();
    /// let server = Server::builder().websocket("/silent", silent).bind("127.0.0.1:0")?;
    /// # Ok::<(), peregrine::Error>(())
    /// ```
    pub fn new(handler: impl Into<Self>) -> Self {
        handler.into()
    }

    /// An endpoint at which this handler serves, and a function, `on_upgrade`, that decides about
    /// each upgrade to it: whether it is granted, and with which session. The session needs no
    /// `Default`.
    ///
    /// The function is called once for each valid request for an upgrade from an allowed origin,
    /// before any call of the handler. It may decide [later](Upgrade::later). A panic in it refuses
    /// the request with 500. One function may serve several endpoints.
    ///
    /// ```
    /// use peregrine::{
    ///     Accept, Endpoint, Handler, Message, Reply, Request, Response, Server, WebSocket,
    /// };
    ///
    /// struct Member {
    ///     name: String,
    /// }
    ///
    /// fn authenticate(request: &Request<'_>) -> Result<Accept<Member>, Response> {
    ///     match request.cookie("token") {
    ///         Some("secret") => Ok(peregrine::Accept::new(Member { name: "Alice".to_owned() })),
    ///         _ => Err(Response::new(401)),
    ///     }
    /// }
    ///
    /// struct Echo;
    ///
    /// impl Handler for Echo {
    ///     type Session = Member;
    ///
    ///     fn on_message<'m>(&self, ws: &mut WebSocket<'_, Member>, _: Message<'m>) -> Reply<'m> {
    ///         format!("Thank you, {}", ws.session().name).into()
    ///     }
    /// }
    ///
    /// let echo = Endpoint::with_upgrade(Echo, authenticate);
    /// let server = Server::builder().websocket("/echo", echo).bind("127.0.0.1:0")?;
    /// # Ok::<(), peregrine::Error>(())
    /// ```
    pub fn with_upgrade<H: Handler, U: IntoUpgrade<Session = H::Session>>(
        handler: H,
        on_upgrade: impl Fn(&Request<'_>) -> U + Send + Sync + 'static,
    ) -> Self {
        let on_upgrade = move |request: &Request<'_>| on_upgrade(request).into_upgrade();
        let handler = Box::new(Served { handler, on_upgrade });
        Self { handler, settings: Settings::default(), checks: Vec::new() }
    }

    /// As [`Router::dependency`](crate::Router::dependency), for this endpoint.
    pub fn dependency<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.settings.dependencies.insert(value);
        self
    }

    /// As [`Router::requires`](crate::Router::requires), for this endpoint.
    pub fn requires<T: Send + Sync + 'static>(mut self) -> Self {
        self.settings.required.push(RequiredType::of::<T>());
        self
    }

    /// As [`Router::adjust_limits`](crate::Router::adjust_limits), for this endpoint.
    pub fn adjust_limits(mut self, adjust: impl FnOnce(&mut Limits) + Send + 'static) -> Self {
        self.settings.adjustments.push(Box::new(adjust));
        self
    }

    /// As [`Router::allow_origin`](crate::Router::allow_origin), for this endpoint.
    pub fn allow_origin(mut self, origin: impl Into<String>) -> Self {
        self.settings.allow_origin(origin.into());
        self
    }

    /// As [`Router::any_origin`](crate::Router::any_origin), for this endpoint.
    pub fn any_origin(mut self) -> Self {
        self.settings.origins = Some(Origins::Any);
        self
    }

    /// Refuses requests in whose query this parameter is missing, or is no `T`, with status 400 and
    /// a text that names it, before the handler is asked. Of several values the first counts.
    /// [`query_as`](crate::WebSocket::query_as) finds it later.
    pub fn required_query<T: FromStr>(self, name: impl Into<Cow<'static, str>>) -> Self {
        self.check(Check::new::<T>(Place::Query, name.into()))
    }

    /// Refuses requests in whose path this parameter is no `T`, with status 400 and a text that
    /// names it, before the handler is asked. [`param_as`](crate::WebSocket::param_as) finds it
    /// later. If the path has no such parameter, `bind` fails with
    /// [`Error::Path`](crate::Error::Path).
    pub fn required_param<T: FromStr>(self, name: impl Into<Cow<'static, str>>) -> Self {
        self.check(Check::new::<T>(Place::Path, name.into()))
    }

    fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }
}
