//! A shard's listening socket: bound, exclusive or shared, accepting.
//!
//! Knows the kernel's listeners. Must not know connections, nor which shard one lives on.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

use crate::transport::claim::{Claim, is_claimed};
#[cfg(feature = "testing")]
use crate::transport::test::arrivals::Arrivals;
use crate::transport::{Transport, tcp};

/// How many connections wait in the kernel to be accepted.
pub(crate) const BACKLOG: u16 = 4096;
/// How much the kernel takes of a connection's output ahead of sending it, in bytes.
const NOT_SENT_BYTES: u32 = 128 << 10;
/// How long the listener rests when the process is out of descriptors or memory.
const REST: Duration = Duration::from_millis(100);

// Instructions and TCP flags of the filter below (linux/filter.h; RFC 9293 section 3.1).
const LOAD_BYTE: u16 = 0x30;
const SKIP_IF_SET: u16 = 0x45;
const RETURN: u16 = 0x06;
const FLAGS_AT: u32 = 13;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;

/// Drops what begins a connection, SYN without ACK, and lets all else through.
const NO_NEW_CLIENTS: [SockFilter; 5] = [
    SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_AT),
    SockFilter::new(SKIP_IF_SET, 0, 2, SYN),
    SockFilter::new(SKIP_IF_SET, 1, 0, ACK),
    SockFilter::new(RETURN, 0, 0, 0),
    SockFilter::new(RETURN, 0, 0, u32::MAX),
];

/// Whether other servers may listen at the same address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PortUse {
    #[default]
    Exclusive,
    Shared,
}

/// A shard's socket, bound and listening.
#[derive(Debug)]
pub(crate) struct Bound {
    // Before the socket: while it listens without the claim, it is about to be closed.
    claim: Option<Arc<Claim>>,
    socket: StdListener,
}

impl Bound {
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// A listener that remembers whether more sockets may be waiting: events are edge-triggered.
#[derive(Debug)]
pub(crate) struct Listener {
    /// The last listener of the server gives it up.
    _claim: Option<Arc<Claim>>,
    source: Source,
    pub(crate) is_ready: bool,
    /// Out of descriptors: nothing is accepted until then.
    pub(crate) resting_until: Option<Instant>,
}

/// Where connections come from.
#[derive(Debug)]
enum Source {
    Tcp(TcpListener),
    #[cfg(feature = "testing")]
    Memory(Arrivals),
}

/// What accepting brought.
#[derive(Debug)]
pub(crate) enum Accepted {
    Connection(Transport, SocketAddr),
    /// Nobody is waiting.
    Nobody,
    /// One could not be accepted: it is gone, or has an error of its own (accept(2)). The next may
    /// be fine.
    Failed(io::Error),
    /// The process is out of descriptors or memory.
    Exhausted(io::Error),
}

/// Binds one listener a shard to the same address; port 0 is drawn once, for all.
///
/// The listeners share the port by `SO_REUSEPORT`. An exclusive server begins with a listener that
/// does not: it can listen only if no other socket does, and no other can while it does not share.
/// It shares once its claim is there to be seen. A shared server that could listen, and then sees
/// no claim, was first: the exclusive one fails.
pub(crate) fn bind(
    address: SocketAddr,
    shard_count: usize,
    port_use: PortUse,
) -> io::Result<Vec<Bound>> {
    if port_use == PortUse::Shared && is_claimed(address) {
        // Seen before anything listens: no client loses its connection by the attempt.
        return Err(Errno::ADDRINUSE.into());
    }
    let first = listen(address, port_use)?;
    let address = first.local_addr()?;
    let mut claim = None;
    if port_use == PortUse::Exclusive && shard_count > 1 {
        claim = Claim::new(address)
            .inspect_err(|error| log::debug!("the port {address} is not claimed: {error}"))
            .ok()
            .map(Arc::new);
        SockRef::from(&first).set_reuse_port(true)?;
    }
    let mut listeners = vec![Bound { claim: claim.clone(), socket: first }];
    for _ in 1..shard_count {
        let socket = listen(address, PortUse::Shared)?;
        listeners.push(Bound { claim: claim.clone(), socket });
    }
    if port_use == PortUse::Shared && is_claimed(address) {
        return Err(Errno::ADDRINUSE.into());
    }
    Ok(listeners)
}

fn listen(address: SocketAddr, port_use: PortUse) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(port_use == PortUse::Shared)?;
    // Accepted sockets inherit it: small messages leave at once, without a system call each.
    socket.set_tcp_nodelay(true)?;
    // What is not sent yet stays in the outbox, where it is bounded, counted and seen: the kernel
    // would take megabytes from us for a client that reads slowly, and tell of no progress.
    socket.set_tcp_notsent_lowat(NOT_SENT_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG.into())?;
    Ok(socket.into())
}

impl Listener {
    pub(crate) fn new(bound: Bound, registry: &Registry, token: Token) -> io::Result<Self> {
        let Bound { claim, socket } = bound;
        let mut socket = TcpListener::from_std(socket);
        registry.register(&mut socket, token, Interest::READABLE)?;
        Ok(Self::from_source(Source::Tcp(socket), claim))
    }

    /// Connections in memory.
    #[cfg(feature = "testing")]
    pub(crate) fn in_memory(arrivals: Arrivals) -> Self {
        Self::from_source(Source::Memory(arrivals), None)
    }

    fn from_source(source: Source, claim: Option<Arc<Claim>>) -> Self {
        // Some may have come before it was registered.
        Self { _claim: claim, source, is_ready: true, resting_until: None }
    }

    pub(crate) fn accept(&mut self, now: Instant) -> Accepted {
        let accepted = match &self.source {
            Source::Tcp(socket) => tcp::accept(socket).map(|(tcp, peer)| (tcp.into(), peer)),
            #[cfg(feature = "testing")]
            Source::Memory(arrivals) => arrivals.accept().map(|(end, peer)| (end.into(), peer)),
        };
        let error = match accepted {
            Ok((transport, peer)) => return Accepted::Connection(transport, peer),
            Err(error) => error,
        };
        if error.kind() == ErrorKind::WouldBlock {
            self.is_ready = false;
            return Accepted::Nobody;
        }
        let exhaustion = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
        if Errno::from_io_error(&error).is_some_and(|errno| exhaustion.contains(&errno)) {
            self.resting_until = Some(now + REST);
            return Accepted::Exhausted(error);
        }
        Accepted::Failed(error)
    }

    /// Lets nobody begin to connect any more, while the handshakes under way are completed: closing
    /// the socket would reset them. The kernel of a new client tries again after a second; by then
    /// the socket is closed, and another process on the port gets it, or nobody.
    pub(crate) fn refuse_new_clients(&self) -> io::Result<()> {
        #[allow(clippy::infallible_destructuring_match, reason = "the tests have another kind")]
        let socket = match &self.source {
            Source::Tcp(socket) => socket,
            #[cfg(feature = "testing")]
            Source::Memory(_) => return Err(ErrorKind::Unsupported.into()),
        };
        SockRef::from(socket).attach_filter(&NO_NEW_CLIENTS)
    }

    /// Whether somebody waits to be accepted, and will for ever.
    #[cfg(feature = "testing")]
    pub(crate) fn is_deaf(&self) -> bool {
        match &self.source {
            Source::Tcp(_) => false,
            Source::Memory(arrivals) => !self.is_ready && arrivals.has_waiting(),
        }
    }

    /// Whether accepting is worth trying.
    pub(crate) fn is_awake(&self, now: Instant) -> bool {
        self.is_ready && self.resting_until.is_none_or(|until| until <= now)
    }
}
