//! [`Server`]: what is served where is gathered, the address is bound, one thread a shard is
//! started, and all of it is shut down.
//!
//! Knows threads, processors and the operating system's limits. Must not know frames.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::config::{AGES, Limits};
use crate::error::Error;
use crate::handler::{Endpoint, Handler};
use crate::http::{Origins, Response};
use crate::hub::mailbox::mailbox;
use crate::hub::{EndpointIndex, Hub, Node, SHARD_COUNT_MAX, Shared};
use crate::network::Networks;
use crate::shard::{self, EventLoop, Page, Seat, Service, WAKER, clock};

/// Gathers what a server serves. Made by [`Server::builder`].
///
/// Mistakes in what was gathered (a path that is taken, limits that contradict one another) are
/// reported by [`bind`](Self::bind).
#[derive(Default)]
#[must_use = "a builder does nothing until it is bound"]
pub struct Builder {
    shard_count: Option<usize>,
    limits: Limits,
    endpoints: Vec<(String, Box<dyn Endpoint>)>,
    pages: Vec<(String, Response)>,
    origins: Origins,
    proxies: Vec<String>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<_> = self.endpoints.iter().map(|(path, _)| path).collect();
        f.debug_struct("Builder")
            .field("shard_count", &self.shard_count)
            .field("limits", &self.limits)
            .field("endpoints", &paths)
            .field("pages", &self.pages)
            .field("origins", &self.origins)
            .field("proxies", &self.proxies)
            .finish()
    }
}

impl Builder {
    /// How many shards: threads, each with an event loop of its own. Default: the available
    /// parallelism. If it is exactly that, each thread is pinned to its processor.
    pub fn shards(mut self, count: usize) -> Self {
        self.shard_count = Some(count);
        self
    }

    /// Replaces the limits; see [`Limits`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Serves WebSockets at a path. A broadcast stays within its endpoint.
    pub fn websocket(mut self, path: impl Into<String>, handler: impl Handler) -> Self {
        self.endpoints.push((path.into(), Box::new(handler)));
        self
    }

    /// Serves a fixed page at a path, to `GET` and `HEAD`. The path may also be that of an
    /// endpoint: then the page is for those who do not upgrade.
    pub fn get(mut self, path: impl Into<String>, page: impl Into<Response>) -> Self {
        self.pages.push((path.into(), page.into()));
        self
    }

    /// Lets the pages of one more origin open WebSockets here, such as `https://app.example.com`.
    ///
    /// A browser lets any page connect anywhere, with its visitor's cookies, and names the page's
    /// origin (RFC 6455 section 10.2). Pages of the server's own host pass: those whose origin has
    /// the host and port that the request's `Host` names. So do requests without `Origin`, which
    /// are not a browser's. All others get status 403.
    ///
    /// Behind a proxy that rewrites `Host`, the server's own pages have to be listed, too. And a
    /// name of an attacker's that is made to resolve to this server looks like its own host: who
    /// serves within a private network should compare `Host` in `on_upgrade`.
    ///
    /// `null` is the origin of sandboxed frames and the like, of any site.
    pub fn allow_origin(mut self, origin: impl Into<String>) -> Self {
        self.origins.allow(origin.into());
        self
    }

    /// Lets the pages of every site open WebSockets here. Right for what trusts no cookies.
    pub fn any_origin(mut self) -> Self {
        self.origins = Origins::Any;
        self
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

    /// Binds the address and prepares the shards. From here on connections queue up in the kernel;
    /// they are served once the server [runs](Server::run) or has been [started](Server::start).
    ///
    /// Port 0 draws a free port, the same for all shards; [`Server::local_addr`] tells it. Of
    /// several addresses that a name resolves to, the first that can be bound is used.
    ///
    /// The port is shared (`SO_REUSEPORT`): between the shards, and with any other server of the
    /// same user that shares it, too. That lets a new process take over from an old one; it also
    /// means that a second copy started by accident is not refused but gets half of the clients.
    ///
    /// # Errors
    /// [`Error::Path`], [`Error::Limits`], [`Error::Origin`], [`Error::Proxy`],
    /// [`Error::Shards`]; [`Error::Io`] if the address cannot be bound.
    pub fn bind(self, address: impl ToSocketAddrs) -> Result<Server, Error> {
        self.limits.validate()?;
        self.origins.validate()?;
        let proxies = Networks::parse(&self.proxies)?;
        let parallelism = thread::available_parallelism()?.get();
        let shard_count = self.shard_count.unwrap_or(parallelism);
        if !(1..=SHARD_COUNT_MAX).contains(&shard_count) {
            return Err(Error::Shards(shard_count));
        }
        let mut limits = self.limits;
        limits.tame();
        let (mut service, paths) = gather(self.endpoints, self.pages)?;
        service.origins = self.origins;
        service.proxies = proxies;
        let listeners = bind_first(address, shard_count)?;
        let local_addr = listeners[0].local_addr()?;
        let mut seats = Vec::with_capacity(shard_count);
        let mut mailboxes = Vec::with_capacity(shard_count);
        for (index, listener) in listeners.into_iter().enumerate() {
            let poll = mio::Poll::new()?;
            let waker = mio::Waker::new(poll.registry(), WAKER)?;
            let (sender, inbox) = mailbox(waker, limits.mailbox_count, limits.mailbox_bytes);
            mailboxes.push(sender);
            seats.push(Seat { index, poll, listener, inbox });
        }
        let hub = Hub::new(Arc::new(Shared {
            node: Node::random(),
            mailboxes: mailboxes.into(),
            endpoints: paths,
            shutdown: <_>::default(),
        }));
        let connection_limit = limits.connection_count.unwrap_or_else(descriptor_allowance);
        let service = Arc::new(service);
        Ok(Server { seats, service, limits, connection_limit, hub, local_addr })
    }
}

type Paths = std::collections::HashMap<String, EndpointIndex>;

/// Checks paths and sorts what is served by them.
fn gather(
    endpoints: Vec<(String, Box<dyn Endpoint>)>,
    pages: Vec<(String, Response)>,
) -> Result<(Service, Paths), Error> {
    let mut service = Service::default();
    let mut paths = Paths::new();
    for (path, endpoint) in endpoints {
        let Ok(index) = EndpointIndex::try_from(service.endpoints.len()) else {
            return Err(Error::Path { path, problem: "there are too many endpoints".to_owned() });
        };
        service.routes.add_endpoint(&path, index)?;
        service.endpoints.push(endpoint);
        paths.insert(path, index);
    }
    for (path, page) in pages {
        service.routes.add_page(&path, service.pages.len())?;
        service.pages.push(Page::new(&page));
    }
    Ok((service, paths))
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

/// A WebSocket server whose address is bound.
///
/// ```
/// use peregrine::{Callbacks, Server};
///
/// let echo = Callbacks::<()>::new().on_message(|_ws, message| message.into());
/// let running = Server::builder().websocket("/echo", echo).bind("127.0.0.1:0")?.start()?;
/// println!("ws://{}/echo", running.local_addr());
/// let report = running.shutdown(std::time::Duration::from_secs(1))?;
/// assert_eq!(report.aborted_count, 0);
/// # Ok::<(), peregrine::Error>(())
/// ```
#[must_use = "a server that is bound serves nobody until it runs"]
pub struct Server {
    seats: Vec<Seat>,
    service: Arc<Service>,
    limits: Limits,
    connection_limit: usize,
    hub: Hub,
    local_addr: SocketAddr,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("local_addr", &self.local_addr)
            .field("shard_count", &self.seats.len())
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Begins to gather what is served.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The address that is bound, with the port that was drawn.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// A handle with which any thread reaches the connections.
    #[must_use]
    pub fn hub(&self) -> Hub {
        self.hub.clone()
    }

    /// Serves on threads of its own, and blocks until they end.
    ///
    /// # Errors
    /// [`Error::Io`] if a thread cannot be started; [`Error::ShardPanicked`].
    pub fn run(self) -> Result<(), Error> {
        self.start()?.join()
    }

    /// Serves on threads of its own, and returns at once.
    ///
    /// # Errors
    /// [`Error::Io`] if a thread cannot be started.
    pub fn start(self) -> Result<Running, Error> {
        let mut running =
            Running { threads: Vec::new(), hub: self.hub.clone(), local_addr: self.local_addr };
        let processors = processors_to_pin(self.seats.len());
        for seat in self.seats {
            let (service, limits, hub) =
                (Arc::clone(&self.service), self.limits.clone(), self.hub.clone());
            let processor = processors.get(seat.index).copied();
            let connection_limit = self.connection_limit;
            let thread = thread::Builder::new().name(format!("peregrine-{}", seat.index)).spawn(
                move || {
                    pin(processor);
                    let guard = Guard { hub: hub.clone(), shard: seat.index };
                    let ended = EventLoop::new(seat, service, limits, connection_limit, hub)?.run();
                    drop(guard);
                    ended
                },
            )?;
            running.threads.push(thread);
        }
        Ok(running)
    }
}

/// Ends the whole server when one of its shards ends: half a server would refuse or lose half of
/// what it is given, and say nothing.
struct Guard {
    hub: Hub,
    shard: usize,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let shared = self.hub.shared();
        if shared.shutdown.deadline().is_none() {
            log::error!("shard {} ended before its time; the server shuts down", self.shard);
            shared.mailboxes[self.shard].close();
            shared.shutdown.quiet_count.fetch_add(1, Ordering::AcqRel);
            shared.begin_shutdown(clock::now() + LAST_GRACE);
        }
    }
}

/// The processors to pin the shards to: one each if there are exactly as many, else none. With
/// fewer shards the scheduler knows better where there is room; with more, they have to share.
fn processors_to_pin(shard_count: usize) -> Vec<usize> {
    let Ok(allowed) = sched_getaffinity(None) else { return Vec::new() };
    let processors: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
    if processors.len() == shard_count { processors } else { Vec::new() }
}

fn pin(processor: Option<usize>) {
    let Some(processor) = processor else { return };
    let mut set = CpuSet::new();
    set.set(processor);
    if let Err(error) = sched_setaffinity(None, &set) {
        log::debug!("the shard is not pinned: {error}");
    }
}

/// A server that serves. Dropping it stops it at once, without grace.
#[derive(Debug)]
#[must_use = "dropping it stops the server"]
pub struct Running {
    threads: Vec<JoinHandle<io::Result<()>>>,
    hub: Hub,
    local_addr: SocketAddr,
}

/// What is left to the other shards when one has ended before its time.
const LAST_GRACE: Duration = Duration::from_secs(1);

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// How many connections were open when it began.
    pub open_count: usize,
    /// How many connections were dropped because the grace was over before they had ended; those
    /// that were still upgrading included.
    pub aborted_count: usize,
}

impl Running {
    /// The address that is served.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// A handle with which any thread reaches the connections.
    #[must_use]
    pub fn hub(&self) -> Hub {
        self.hub.clone()
    }

    /// Stops serving: accepts nobody any more, delivers every message that was accepted, closes
    /// every connection with 1001 and waits for the closing handshakes, for as long as `grace`;
    /// what is left is then dropped. `on_close` is called for all. Not to be called by a handler:
    /// its own shard could not end.
    ///
    /// # Errors
    /// As of [`join`](Self::join).
    pub fn shutdown(mut self, grace: Duration) -> Result<ShutdownReport, Error> {
        self.stop(grace)?;
        let shutdown = &self.hub.shared().shutdown;
        Ok(ShutdownReport {
            open_count: shutdown.open_count.load(Ordering::Relaxed),
            aborted_count: shutdown.aborted_count.load(Ordering::Relaxed),
        })
    }

    /// Blocks until the server's threads have ended.
    ///
    /// # Errors
    /// [`Error::Io`] if the operating system refused to wait for events;
    /// [`Error::ShardPanicked`].
    pub fn join(mut self) -> Result<(), Error> {
        self.join_threads()
    }

    fn stop(&mut self, grace: Duration) -> Result<(), Error> {
        self.hub.shared().begin_shutdown(clock::now() + grace.min(AGES));
        self.join_threads()
    }

    fn join_threads(&mut self) -> Result<(), Error> {
        let mut outcome = Ok(());
        for thread in self.threads.drain(..) {
            if thread.thread().id() == thread::current().id() {
                // A handler stops its own server: its thread ends when the handler has returned.
                continue;
            }
            let ended = thread.join().map_err(|_| Error::ShardPanicked);
            let ended = ended.and_then(|result| result.map_err(Error::Io));
            outcome = outcome.and(ended);
        }
        outcome
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.threads.is_empty()
            && let Err(error) = self.stop(Duration::ZERO)
        {
            log::error!("the server did not stop cleanly: {error}");
        }
    }
}
