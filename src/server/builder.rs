//! [`ServerBuilder`]: the root router, what only a server has, and the binding of its address.
//!
//! Knows routers, shards' parts, mailboxes and the processors' count. Must not know connections,
//! protocols or frames.

use std::io::{self, ErrorKind};
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::thread;

use super::descriptors::{self, Descriptors};
use super::gather::{Gathered, gather};
use super::parts::{Derived, Parts};
use super::thread::{OnShardThread, ShardEnded, ShardThread};
use super::{Endpoint, Router, Server};
use crate::config::Limits;
use crate::error::Error;
use crate::http::Response;
use crate::http::network::Networks;
use crate::hub::mailbox::mailbox;
use crate::hub::{Hub, Node, Outlet, SHARD_COUNT_MAX};
use crate::shard::{
    self, Bound, ClientLimits, ConnectionQuota, Pool, PortUse, Service, ShardParts, WAKER,
};
use crate::sync::Waker;

/// Gathers what a server serves: the outermost [`Router`], and what only a server has. Made by
/// [`Server::builder`].
///
/// Mistakes in what was gathered (a path that is taken, limits that contradict one another) are
/// reported by [`bind`](Self::bind).
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until it is bound"]
pub struct ServerBuilder {
    shard_count: Option<usize>,
    port_use: PortUse,
    keeps_descriptor_limit: bool,
    on_shard_thread: OnShardThread,
    limits: Limits,
    root: Router,
    proxies: Vec<String>,
    readiness: Option<String>,
    outlets: Vec<Arc<dyn Outlet>>,
}

impl Server {
    /// Begins to gather what is served.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }
}

impl ServerBuilder {
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

    /// Gives every handler of the server a value, to be found by its type with
    /// [`WebSocket::dependency`](crate::WebSocket::dependency). A second one of the same type
    /// replaces the first. A router or an endpoint may give its handlers another one.
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
    ///     let visit = ws.dependency::<Visits>().0.fetch_add(1, Ordering::Relaxed) + 1;
    ///     format!("You are client number {visit}").into()
    /// });
    /// let server = Server::builder()
    ///     .dependency(Visits::default())
    ///     .websocket("/visits", counting)
    ///     .bind("127.0.0.1:0")?;
    /// # Ok::<(), peregrine::Error>(())
    /// ```
    pub fn dependency<T: Send + Sync + 'static>(self, value: T) -> Self {
        Self { root: self.root.dependency(value), ..self }
    }

    /// Another name for [`dependency`](Self::dependency): Robyn calls it `inject_global`.
    pub fn global<T: Send + Sync + 'static>(self, value: T) -> Self {
        self.dependency(value)
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
    /// [`WebSocket::client_ip`](crate::WebSocket::client_ip) then return the client's address
    /// instead of the proxy's. A trusted proxy may state it in two ways:
    ///
    /// * by the PROXY protocol, version 1 or 2, if that is the first it says on a connection (a
    ///   malformed header gets status 400);
    /// * by `X-Forwarded-For` or `Forwarded` (RFC 7239) of the upgrade. They are walked from the
    ///   right, for as long as a trusted proxy wrote the entry. If both are there and
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

    /// Serves a page at a path for a program that decides where clients are sent: a load balancer,
    /// an orchestrator. Its status is 200 while the server accepts clients and means to go on, and
    /// 503 from the moment at which a shutdown begins; for how long it still accepts them
    /// then, [`ShutdownPlan::announce`](crate::ShutdownPlan::announce) tells. A second call
    /// replaces the first.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use peregrine::{Callbacks, Server, ShutdownPlan};
    ///
    /// let running = Server::builder()
    ///     .websocket("/chat", Callbacks::<()>::new())
    ///     .readiness("/ready")
    ///     .bind("127.0.0.1:0")?
    ///     .start()?;
    /// // For 5 s the page says 503, then nobody is accepted any more.
    /// let plan = ShutdownPlan::within(Duration::from_secs(30)).announce(Duration::from_secs(5));
    /// # let plan = Duration::ZERO;
    /// running.shutdown(plan)?;
    /// # Ok::<(), peregrine::Error>(())
    /// ```
    pub fn readiness(mut self, path: impl Into<String>) -> Self {
        self.readiness = Some(path.into());
        self
    }

    /// Shares the port with other servers that ask for it, too: so a new process takes over from an
    /// old one while the port is never without a listener ([`ShutdownPlan`](crate::ShutdownPlan)).
    /// All of them must run under the same user; until the old one has stopped listening, the
    /// kernel deals new connections out to both.
    ///
    /// Without this call the port is exclusive: [`bind`](Self::bind) fails if any other server
    /// listens there, and no server can join later. So a second copy that was started by accident
    /// ends with an error and does not take half of the clients.
    ///
    /// An exclusive port has a mark in the abstract namespace of Unix sockets, which lasts
    /// as long as the server listens. Programs other than peregrine do not look for it: one that
    /// runs under the same user and sets `SO_REUSEPORT` can join a server of several shards.
    ///
    /// ```
    /// use peregrine::{Callbacks, Server};
    ///
    /// let app = || Server::builder().websocket("/", Callbacks::<()>::new()).share_port();
    /// let old = app().bind("127.0.0.1:0")?;
    /// let new = app().bind(old.local_addr())?;
    /// assert_eq!(new.local_addr(), old.local_addr());
    /// # Ok::<(), peregrine::Error>(())
    /// ```
    pub fn share_port(mut self) -> Self {
        self.port_use = PortUse::Shared;
        self
    }

    /// Whether [`bind`](Self::bind) raises the limit of open descriptors of the process: the soft
    /// limit (`RLIMIT_NOFILE`, often 1024) becomes the hard one, as Go's runtime does it, too.
    /// Default `true`, because each connection is a descriptor.
    ///
    /// Say `false` if the process does what a high limit harms: it calls `select(2)`, or it starts
    /// programs, which inherit the limit, and which call `select(2)` or close every descriptor up
    /// to the limit one by one.
    ///
    /// [`Limits::max_connections`] is derived from the limit unless it is set.
    pub fn raise_descriptor_limit(mut self, raises: bool) -> Self {
        self.keeps_descriptor_limit = !raises;
        self
    }

    /// Wraps the work of every shard's thread in a closure: what the closure does before
    /// [`ShardThread::run`] counts while the shard's handlers and futures are called and dropped;
    /// what it holds is dropped on the same thread after them.
    ///
    /// A future that needs the context of a runtime, such as tokio's timers and sockets, needs
    /// this: shards are not threads of the runtime. `Handle::enter` gives them the context, and the
    /// runtime's own threads drive its timers and sockets, so it must have some (a multi-thread
    /// runtime does).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use peregrine::{Callbacks, Reply, Server};
    /// use tokio::runtime::Runtime;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let runtime = Runtime::new()?;
    /// let tokio = runtime.handle().clone();
    /// let patient = Callbacks::<()>::new().on_message(|_ws, _message| {
    ///     Reply::later(async {
    ///         tokio::time::sleep(Duration::from_millis(20)).await;
    ///         "now"
    ///     })
    /// });
    /// let server = Server::builder()
    ///     .on_shard_thread(move |shard| {
    ///         let _context = tokio.enter();
    ///         shard.run()
    ///     })
    ///     .websocket("/", patient)
    ///     .bind("127.0.0.1:0")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A second call adds a closure, within the first. A panic in a closure ends the server;
    /// [`RunningServer::join`](crate::RunningServer::join) returns [`Error::ShardThread`].
    ///
    /// The test kit has no threads. It calls the closure on the test's thread around each turn of
    /// each shard, so the closure must not make anything that a future keeps from one turn to the
    /// next, such as a runtime: make it outside.
    pub fn on_shard_thread(
        mut self,
        around: impl Fn(ShardThread<'_>) -> ShardEnded + Send + Sync + 'static,
    ) -> Self {
        self.on_shard_thread.add(around);
        self
    }

    /// Binds the address and prepares the shards. From here on connections queue up in the kernel;
    /// they are served once the server [runs](Server::run) or has been [started](Server::start).
    ///
    /// Port 0 draws a free port, the same for all shards; [`Server::local_addr`] returns it. Of
    /// several addresses that a name resolves to, the first that can be bound is used; the search
    /// ends with an error at the first one whose port is taken.
    ///
    /// The port is exclusive: if another server listens there, in this process or another one,
    /// `bind` fails, and no other server can join. [`share_port`](Self::share_port) lets servers
    /// share it, for the replacement of one by another.
    ///
    /// The process may have more descriptors open after this call; see
    /// [`raise_descriptor_limit`](Self::raise_descriptor_limit).
    ///
    /// # Errors
    /// [`Error::Path`], [`Error::Limits`], [`Error::EndpointLimits`], [`Error::Dependency`],
    /// [`Error::Origin`], [`Error::Proxy`], [`Error::Shards`]; [`Error::Bind`] if the address
    /// cannot be bound, with the address; [`Error::Io`] if the name has no address, or the
    /// operating system refuses something else.
    pub fn bind(self, address: impl ToSocketAddrs) -> Result<Server, Error> {
        if !self.keeps_descriptor_limit {
            descriptors::raise_limit();
        }
        let port_use = self.port_use;
        let mut parts = self.prepare(Shards::AsProcessors)?;
        let listeners = bind_first(address, parts.shard_parts.len(), port_use)?;
        let local_addr = listeners[0].local_addr()?;
        for (parts, listener) in parts.shard_parts.iter_mut().zip(listeners) {
            parts.listener = Some(listener);
        }
        Ok(Server { parts, local_addr })
    }

    /// Adds a destination of publications beside the shards.
    #[cfg(test)]
    pub(super) fn outlet(mut self, outlet: Arc<dyn Outlet>) -> Self {
        self.outlets.push(outlet);
        self
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
        let descriptors = Descriptors::now();
        let derived = Derived {
            descriptors,
            max_connections: of_server
                .max_connections
                .unwrap_or_else(|| descriptors.max_connections()),
            max_offload_threads: of_server
                .max_offload_threads
                .unwrap_or_else(|| (4 * parallelism).max(OFFLOAD_THREADS_LEAST)),
        };
        let (pool, pool_end) = Pool::new(derived.max_offload_threads, of_server.max_queued_jobs);
        let mut shard_parts = Vec::with_capacity(shard_count);
        let mut mailboxes = Vec::with_capacity(shard_count);
        for index in 0..shard_count {
            let poll = mio::Poll::new()?;
            let waker = Waker::new(poll.registry(), WAKER)?;
            let (sender, inbox) =
                mailbox(waker, of_server.max_mailbox_envelopes, of_server.max_mailbox_bytes);
            mailboxes.push(sender);
            shard_parts.push(ShardParts { index, poll, listener: None, inbox });
        }
        let hub = Hub::new(Node::random(), mailboxes.into(), self.outlets.into(), paths);
        let quota = ConnectionQuota::new(derived.max_connections);
        let client_limits = ClientLimits::new(of_server);
        let service =
            Service { pool, endpoints, routes, pages, unready, proxies, quota, client_limits };
        let (service, on_shard_thread) = (Arc::new(service), self.on_shard_thread);
        Ok(Parts { shard_parts, service, pool_end, limits, hub, derived, on_shard_thread })
    }
}

/// The least threads for offloaded work if their number is not set: mostly they wait.
const OFFLOAD_THREADS_LEAST: usize = 16;

/// How many shards there are if nobody says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shards {
    #[cfg(feature = "testing")]
    One,
    AsProcessors,
}

fn bind_first(
    address: impl ToSocketAddrs,
    shard_count: usize,
    port_use: PortUse,
) -> Result<Vec<Bound>, Error> {
    let none = io::Error::new(ErrorKind::InvalidInput, "the name has no address");
    let mut refused = Error::Io(none);
    for address in address.to_socket_addrs()? {
        let error = match shard::bind(address, shard_count, port_use) {
            Ok(listeners) => return Ok(listeners),
            Err(error) => error,
        };
        let is_taken = error.kind() == ErrorKind::AddrInUse;
        refused = Error::Bind { address, error };
        if is_taken {
            // Another address of the name would make a second copy of a server that has this one.
            break;
        }
    }
    Err(refused)
}
