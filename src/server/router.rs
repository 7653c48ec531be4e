//! [`Router`]: what is served below one prefix, and what all of it shares.
//!
//! Knows endpoints, pages and settings. Must not know what a router inherits from those around it,
//! nor shards.

use std::fmt;

use super::Endpoint;
use super::settings::Settings;
use crate::config::Limits;
use crate::handler::RequiredType;
use crate::http::Response;

/// A part of an application: endpoints, pages and routers within it, and what they share. It is
/// mounted into a [`ServerBuilder`](crate::ServerBuilder), or into another router, below a prefix.
///
/// What a router says (its dependencies, limits and origins) holds for everything within it; what
/// is said nearer to an endpoint goes before what is said further out. Mistakes are reported by
/// [`ServerBuilder::bind`](crate::ServerBuilder::bind).
///
/// # Paths
///
/// A path begins with a slash. `{name}` stands for one whole segment, or the rest of one
/// (`/img-{name}`), `{*name}` at the end for all that follows, slashes included; doubled braces are
/// literal. What is literal goes before what is a parameter: `/rooms/lobby` before `/rooms/{room}`.
/// Paths are compared in their case. How they are percent-encoded does not matter: `/größe` serves
/// a request for `/gr%C3%B6%C3%9Fe`, `/a b` one for `/a%20b`. Only for the reserved characters of
/// RFC 3986 (such as `/`, `+`, `@`) it does: `%2F` is no slash, and `/a%2Bb` is not `/a+b`.
///
/// `bind` refuses a path that no client can ask for, and the parameters of other routers (`:room`,
/// `*path`, `<room>`, `{id:[0-9]+}`), and says what to write in their place.
///
/// ```
/// use peregrine::{Callbacks, Router, Server};
///
/// struct Greeting(&'static str);
///
/// let room = Callbacks::<()>::new().on_connect(|ws| {
///     let room = ws.param("room").unwrap_or_default();
///     format!("{}, this is room {room}", ws.dependency::<Greeting>().0).into()
/// });
/// let rooms = Router::new()
///     .requires::<Greeting>()
///     .adjust_limits(|limits| limits.max_message_bytes = 4 << 10)
///     .websocket("/{room}", room)
///     .get("/", "Which room?");
/// let server = Server::builder()
///     .dependency(Greeting("Welcome"))
///     .mount("/rooms", rooms)
///     .bind("127.0.0.1:0")?;
/// # Ok::<(), peregrine::Error>(())
/// ```
#[derive(Default)]
#[must_use = "a router serves nothing until it is mounted"]
pub struct Router {
    pub(super) settings: Settings,
    /// Each with its path, as given.
    pub(super) items: Vec<(String, Item)>,
}

/// What stands at one path of a router.
#[derive(Debug)]
pub(super) enum Item {
    Endpoint(Endpoint),
    Page(Response),
    Router(Router),
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("items", &self.items).finish_non_exhaustive()
    }
}

impl Router {
    /// A router that serves nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves WebSockets at a path: a [`Handler`](crate::Handler), or an [`Endpoint`] made of one.
    /// A broadcast stays within its endpoint, whatever the parameters in its path.
    pub fn websocket(mut self, path: impl Into<String>, endpoint: impl Into<Endpoint>) -> Self {
        self.items.push((path.into(), Item::Endpoint(endpoint.into())));
        self
    }

    /// Serves a fixed page at a path, to `GET` and `HEAD`. The path may also be that of an
    /// endpoint: then requests that do not ask for an upgrade get the page.
    pub fn get(mut self, path: impl Into<String>, page: impl Into<Response>) -> Self {
        self.items.push((path.into(), Item::Page(page.into())));
        self
    }

    /// Serves all of another router below a prefix, in which there may be parameters. A slash at
    /// the prefix's end is ignored; `/` within the router is the prefix itself: mounted at `/a`,
    /// its `/b` is `/a/b` and its `/` is `/a`.
    pub fn mount(mut self, prefix: impl Into<String>, router: Self) -> Self {
        self.items.push((prefix.into(), Item::Router(router)));
        self
    }

    /// Gives the handlers within a value, to be found by its type:
    /// [`WebSocket::dependency`](crate::WebSocket::dependency). It goes before one of the same type
    /// from further out; a second one here replaces the first.
    pub fn dependency<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.settings.dependencies.insert(value);
        self
    }

    /// Says that the handlers within need a value of this type, from wherever. If an endpoint
    /// within would lack it, `bind` fails with [`Error::Dependency`](crate::Error::Dependency).
    pub fn requires<T: Send + Sync + 'static>(mut self) -> Self {
        self.settings.required.push(RequiredType::of::<T>());
        self
    }

    /// Edits the limits that are inherited from further out, for the endpoints within; called once,
    /// by `bind`. What counts for the server alone must be left as it is.
    pub fn adjust_limits(mut self, adjust: impl FnOnce(&mut Limits) + Send + 'static) -> Self {
        self.settings.adjustments.push(Box::new(adjust));
        self
    }

    /// Lets the pages of one more origin open WebSockets here, such as `https://app.example.com`.
    ///
    /// A browser lets any page connect to any server, with the user's cookies, and names the page's
    /// origin (RFC 6455 section 10.2). Pages of the server's own host pass: those whose origin has
    /// the host and port that the [request](crate::Request::host) names. So do requests without
    /// `Origin`, which are not a browser's. All others get status 403.
    ///
    /// Programs that are no browsers also write an origin with a slash at its end
    /// (`https://app.example.com/`), without its scheme (`app.example.com`), or with the scheme of
    /// the WebSocket (`wss://app.example.com`). The server takes these for the same origin. No
    /// browser sends one for a page.
    ///
    /// Behind a proxy that rewrites `Host`, the server's own pages have to be listed, too. And a
    /// name of an attacker's that is made to resolve to this server looks like its own host: who
    /// serves within a private network should compare [`Request::host`](crate::Request::host) in
    /// `on_upgrade`.
    ///
    /// `null` is the origin of sandboxed frames and the like, of any site.
    ///
    /// What a router or an endpoint says about origins replaces what is said outside of it.
    pub fn allow_origin(mut self, origin: impl Into<String>) -> Self {
        self.settings.allow_origin(origin.into());
        self
    }

    /// Lets the pages of every site open WebSockets here. Right for what trusts no cookies.
    pub fn any_origin(mut self) -> Self {
        self.settings.origins = Some(crate::http::Origins::Any);
        self
    }
}
