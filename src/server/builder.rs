//! [`Builder`]: the root router, what only a server has, and the binding of its address.

use std::io;
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::thread;

use rustix::process::{Resource, getrlimit};

use super::gather::{Gathered, gather};
use super::{Endpoint, Router, Server};
use crate::config::Limits;
use crate::error::Error;
use crate::http::Response;
use crate::hub::mailbox::mailbox;
use crate::hub::{Hub, Node, SHARD_COUNT_MAX};
use crate::network::Networks;
use crate::shard::{self, LimitTable, Places, Pool, Seat, Service, Visitors, WAKER};
use crate::sync::Waker;

/// Gathers what a server serves: the outermost [`Router`], and what only a server has. Made by
/// [`Server::builder`].
///
/// Mistakes in what was gathered (a path that is taken, limits that contradict one another) are
/// reported by [`bind`](Self::bind).
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until it is bound"]
pub struct Builder {
    shard_count: Option<usize>,
    limits: Limits,
    root: Router,
    proxies: Vec<String>,
    readiness: Option<String>,
}

impl Builder {
    /// How many shards: threads, each with an event loop of its own. Default: the available
    /// parallelism. If it is exactly that, each thread is pinned to its processor.
    pub fn shards(mut self, count: usize) -> Self {
        self.shard_count = Some(count);
        self
    }

    /// Replaces the limits of the server, from which those of its endpoints are adjusted; see
    /// [`Limits`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// As [`Router::websocket`].
    pub fn websocket(self, path: impl Into<String>, endpoint: impl Into<Endpoint>) -> Self {
        Self { root: self.root.websocket(path, endpoint), ..self }
    }

    /// As [`Router::get`].
    pub fn get(self, path: impl Into<String>, page: impl Into<Response>) -> Self {
        Self { root: self.root.get(path, page), ..self }
    }

    /// As [`Router::mount`].
    pub fn mount(self, prefix: impl Into<String>, router: Router) -> Self {
        Self { root: self.root.mount(prefix, router), ..self }
    }

    /// Gives every handler of the server a value, to be found by its type:
    /// [`WebSocket::dependency`](crate::WebSocket::dependency),
    /// [`WebSocket::global`](crate::WebSocket::global). A second one of the same type replaces the
    /// first.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// use peregrine::{Callbacks, Server};
    ///
    /// #[derive(Default)]
    /// struct Visits(AtomicU64);
    ///
    /// let counting = Callbacks::<()>::new().on_connect(|ws| {
    ///     let visit = ws.global::<Visits>().0.fetch_add(1, Ordering::Relaxed) + 1;
    ///     format!("You are visitor number {visit}").into()
    /// });
    /// let server = Server::builder()
    ///     .global(Visits::default())
    ///     .websocket("/visits", counting)
    ///     .bind("127.0.0.1:0")?;
    /// # Ok::<(), peregrine::Error>(())
    /// ```
    pub fn global<T: Send + Sync + 'static>(self, value: T) -> Self {
        Self { root: self.root.dependency(value), ..self }
    }

    /// As [`Router::requires`], for every endpoint of the server.
    pub fn requires<T: Send + Sync + 'static>(self) -> Self {
        Self { root: self.root.requires::<T>(), ..self }
    }

    /// As [`Router::allow_origin`], for every endpoint of the server.
    pub fn allow_origin(self, origin: impl Into<String>) -> Self {
        Self { root: self.root.allow_origin(origin), ..self }
    }

    /// As [`Router::any_origin`], for every endpoint of the server.
    pub fn any_origin(self) -> Self {
        Self { root: self.root.any_origin(), ..self }
    }

    /// Names the proxies before the server that are believed: networks such as `10.0.0.0/8` or
    /// `fd00::/8`, or single addresses. A second call adds to the first. None by default.
    ///
    /// [`Request::client_ip`](crate::Request::client_ip) and
    /// [`WebSocket::client_ip`](crate::WebSocket::client_ip) then tell the client's address instead
    /// of the proxy's. A trusted proxy may tell it in two ways:
    ///
    /// * by the PROXY protocol, version 1 or 2, if that is the first it says on a connection (a
    ///   malformed header gets status 400);
    /// * by `X-Forwarded-For` or `Forwarded` (RFC 7239) of the upgrade. They are walked from the
    ///   right, for as long as whoever wrote the entry is a trusted proxy. If both are there and
    ///   disagree, the request gets status 400: a proxy must remove the one that it does not write.
    ///
    /// Trust only what nobody else can speak through: a proxy that passes bytes on without the
    /// PROXY protocol lends its clients its trust.
    ///
    /// ```
    /// use peregrine::{Callbacks, Server};
    ///
    /// let greeter = Callbacks::<()>::new()
    ///     .on_connect(|ws| format!("you come from {}", ws.client_ip()).into());
    /// let server = Server::builder()
    ///     .websocket("/", greeter)
    ///     .trust_proxies(["10.0.0.0/8", "::1"])
    ///     .bind("127.0.0.1:0")?;
    /// # Ok::<(), peregrine::Error>(())
    /// ```
    pub fn trust_proxies(mut self, networks: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.proxies.extend(networks.into_iter().map(Into::into));
        self
    }

    /// Serves a page at a path for whoever decides where clients are sent: a load balancer, an
    /// orchestrator. Its status is 200 while the server accepts clients and means to go on, and 503
    /// from the moment at which it is told to shut down; for how long it still accepts them then,
    /// [`Shutdown::announce`](crate::Shutdown::announce) tells. A second call replaces the first.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use peregrine::{Callbacks, Server, Shutdown};
    ///
    /// let running = Server::builder()
    ///     .websocket("/chat", Callbacks::<()>::new())
    ///     .readiness("/ready")
    ///     .bind("127.0.0.1:0")?
    ///     .start()?;
    /// // For 5 s the page says 503, then nobody is accepted any more.
    /// let plan = Shutdown::within(Duration::from_secs(30)).announce(Duration::from_secs(5));
    /// # let plan = Duration::ZERO;
    /// running.shutdown(plan)?;
    /// # Ok::<(), peregrine::Error>(())
    /// ```
    pub fn readiness(mut self, path: impl Into<String>) -> Self {
        self.readiness = Some(path.into());
        self
    }

    /// Binds the address and prepares the shards. From here on connections queue up in the kernel;
    /// they are served once the server [runs](Server::run) or has been [started](Server::start).
    ///
    /// Port 0 draws a free port, the same for all shards; [`Server::local_addr`] tells it. Of
    /// several addresses that a name resolves to, the first that can be bound is used.
    ///
    /// The port is shared (`SO_REUSEPORT`): between the shards, and with any other server of the
    /// same user that shares it, too. That lets a new process take over from an old one
    /// ([`Shutdown`](crate::Shutdown)); it also means that a second copy started by accident is not
    /// refused but gets half of the clients.
    ///
    /// # Errors
    /// [`Error::Path`], [`Error::Limits`], [`Error::EndpointLimits`], [`Error::Dependency`],
    /// [`Error::Origin`], [`Error::Proxy`], [`Error::Shards`]; [`Error::Io`] if the address cannot
    /// be bound.
    pub fn bind(self, address: impl ToSocketAddrs) -> Result<Server, Error> {
        let mut parts = self.prepare(Shards::AsProcessors)?;
        let listeners = bind_first(address, parts.seats.len())?;
        let local_addr = listeners[0].local_addr()?;
        for (seat, listener) in parts.seats.iter_mut().zip(listeners) {
            seat.listener = Some(listener);
        }
        Ok(Server { parts, local_addr })
    }

    /// Checks what was gathered and prepares the shards, without listeners.
    pub(crate) fn prepare(self, by_default: Shards) -> Result<Parts, Error> {
        let parallelism = thread::available_parallelism()?.get();
        let shard_count = self.shard_count.unwrap_or(match by_default {
            #[cfg(feature = "testing")]
            Shards::One => 1,
            Shards::AsProcessors => parallelism,
        });
        if !(1..=SHARD_COUNT_MAX).contains(&shard_count) {
            return Err(Error::Shards(shard_count));
        }
        let proxies = Networks::parse(&self.proxies)?;
        let mut gathered = gather(self.root, self.limits)?;
        let unready = self.readiness.map(|path| gathered.add_readiness(&path)).transpose()?;
        let Gathered { endpoints, routes, pages, paths, limits } = gathered;
        let of_server = limits.server();
        let thread_count = of_server.offload_thread_count.unwrap_or(parallelism);
        let pool = Pool::new(thread_count, of_server.offload_queue_count);
        let mut seats = Vec::with_capacity(shard_count);
        let mut mailboxes = Vec::with_capacity(shard_count);
        for index in 0..shard_count {
            let poll = mio::Poll::new()?;
            let waker = Waker::new(poll.registry(), WAKER)?;
            let (sender, inbox) = mailbox(waker, of_server.mailbox_count, of_server.mailbox_bytes);
            mailboxes.push(sender);
            seats.push(Seat { index, poll, listener: None, inbox });
        }
        let hub = Hub::new(Node::random(), mailboxes.into(), paths);
        let places = Places::new(of_server.connection_count.unwrap_or_else(descriptor_allowance));
        let visitors = Visitors::new(of_server);
        let service =
            Service { pool, endpoints, routes, pages, unready, proxies, places, visitors };
        Ok(Parts { seats, service: Arc::new(service), limits, hub })
    }
}

/// How many shards there are if nobody says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shards {
    #[cfg(feature = "testing")]
    One,
    AsProcessors,
}

/// What a server is made of, whoever drives its shards.
pub(crate) struct Parts {
    pub(crate) seats: Vec<Seat>,
    pub(crate) service: Arc<Service>,
    pub(crate) limits: LimitTable,
    pub(crate) hub: Hub,
}

fn bind_first(
    address: impl ToSocketAddrs,
    shard_count: usize,
) -> io::Result<Vec<std::net::TcpListener>> {
    let mut refused = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
    for address in address.to_socket_addrs()? {
        match shard::bind(address, shard_count) {
            Ok(listeners) => return Ok(listeners),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// How many connections the process's descriptors allow, leaving some to the application.
fn descriptor_allowance() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    limit.saturating_sub((limit / 8).max(64)).max(1)
}
