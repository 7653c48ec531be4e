//! Every limit of the server and its endpoints, with its unit, its default and the reason for it.
//!
//! Knows numbers and how they relate. Must not know the things that they limit.

use std::time::Duration;

/// The most headers a request may have, whatever [`Limits::max_headers`] says: they are parsed
/// into an array on the stack.
pub(crate) const HEADER_COUNT_MAX: usize = 128;

/// The largest request head that fits into a shard's receive buffer with room to spare, in bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 64 << 10;

/// As good as never: thirty years.
pub(crate) const AGES: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// What happens to a connection whose outbox cannot take one more message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OverflowPolicy {
    /// The connection is closed with 1013: a client that misses nothing, or is gone.
    #[default]
    Close,
    /// The new message is dropped and counted; a handler that sends it from the same shard is told
    /// [`Overloaded`](crate::SendError::Overloaded) instead.
    DropNewest,
    /// The oldest whole messages that have not begun to leave are dropped and counted, until the
    /// new one fits. For clients that only need the latest.
    DropOldest,
}

/// The limits of a server and its endpoints. [`Limits::default`] is made for the open internet.
///
/// [`ServerBuilder::limits`](crate::ServerBuilder::limits) sets them for the server. Those that
/// bound one connection may differ by endpoint
/// ([`Endpoint::adjust_limits`](crate::Endpoint::adjust_limits),
/// [`Router::adjust_limits`](crate::Router::adjust_limits)); each field says whether it counts *per
/// endpoint* or *for the server* alone.
///
/// ```
/// use peregrine::{Limits, Server};
///
/// let mut limits = Limits::default();
/// limits.max_message_bytes = 16 << 20;
/// limits.max_frame_bytes = 16 << 20;
/// let server = Server::builder().limits(limits).bind("127.0.0.1:0")?;
/// # Ok::<(), peregrine::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest message a client may send, in bytes. Default 1 MiB: a client that sends more
    /// gets Close 1009. One connection holds at most this much of an unfinished message; nothing of
    /// it, if its handler takes messages in pieces
    /// ([`Handler::receives_chunks`](crate::Handler::receives_chunks)).
    ///
    /// Counts per endpoint.
    pub max_message_bytes: usize,
    /// The largest frame a client may send, in bytes. Default 1 MiB; beyond it Close 1009.
    ///
    /// Counts per endpoint.
    pub max_frame_bytes: usize,
    /// The most fragments of one message. Default 1024; beyond it Close 1008. Each fragment costs
    /// a header that the size limits do not see.
    ///
    /// Counts per endpoint.
    pub max_fragments: u32,
    /// The most frames that carry no data (pings, pongs, empty fragments) in one second from one
    /// client. Default 256; beyond it Close 1008. They are free to send and not free to answer.
    ///
    /// Counts per endpoint.
    pub max_empty_frames_per_second: u32,
    /// The largest request head, in bytes, at most 64 KiB. Default 16 KiB: large session cookies
    /// fit, and common proxies and servers take as much. Beyond it status 431.
    ///
    /// Counts for the server.
    pub max_head_bytes: usize,
    /// The most headers in a request, at most 128. Default 64; beyond it status 431.
    ///
    /// Counts for the server.
    pub max_headers: usize,
    /// How long a request may take to arrive. Default 5 s; then status 408. Its decision, if that
    /// [comes later](crate::Upgrade::later), has what is left of it; then status 503. The time of a
    /// connection's first request begins with the connection, that of every other request with its
    /// first byte. A connection that has sent nothing at all is closed without a response: a
    /// browser that has connected in advance, or a pool, would take the 408 for the response to its
    /// next request.
    ///
    /// Counts for the server.
    pub handshake_timeout: Duration,
    /// How long a connection may be silent after a page, from the end of the response to the first
    /// byte of the next request. Default 75 s, above the 60 s of common load balancers: the
    /// balancer closes first, so it never sends a request into a connection that the server is
    /// about to close. Then the connection is closed without a response. 0 closes it after each
    /// page, and the page says so (`Connection: close`).
    ///
    /// Counts for the server.
    pub keep_alive_timeout: Duration,
    /// After how much silence the server sends a ping. Default 25 s, under the 30 s after which
    /// common proxies give up; up to a tenth less, so that pings do not come in herds.
    ///
    /// Counts per endpoint.
    pub ping_after: Duration,
    /// After how much silence the peer counts as gone. Default 60 s: two pings were not answered.
    /// Any byte is a sign of life, also one of a frame that takes its time to arrive. So is each
    /// byte that the peer's kernel acknowledges while output waits for the peer, because the pings
    /// wait behind it: a client that reads slowly all the time is alive. The kernel is asked
    /// (`TCP_INFO`) only before a connection is given up. A client that has stopped reading is
    /// gone after this time, or after twice this time if its kernel took something last.
    /// The connection is closed with 1001, and dropped if that is not answered either.
    ///
    /// Counts per endpoint.
    pub idle_timeout: Duration,
    /// How long each step of a connection's end may take. Default 5 s. The steps are:
    ///
    /// 1. What handlers have left to be done ([`Reply::later`](crate::Reply::later), a message in
    ///    pieces), counted from the moment when the end begins; then, anew, what `on_close` leaves.
    ///    What takes longer is cut, and counted in
    ///    [`Hub::cancelled_count`](crate::Hub::cancelled_count).
    /// 2. The delivery of what is queued, and the peer's Close. As long as the peer takes anything
    ///    of what waits for it, the time begins anew. Nothing bounds the sum: a client that takes a
    ///    byte each time keeps its connection, as one that stays open does, and what its outbox may
    ///    hold. [`Hub::abort`](crate::Hub::abort) and the end of a shutdown's grace end it.
    /// 3. The end of the peer's side of TCP, after the server has ended its own (RFC 6455 section
    ///    7.1.1): to close the socket before would reset the connection as soon as the peer sends
    ///    anything more, and throw away what it has not read yet.
    ///
    /// A connection whose time is over is dropped. While the server
    /// [shuts down](crate::ShutdownPlan), what is left of the grace counts instead for the first
    /// two steps, and bounds the third, once the announcement is over.
    ///
    /// Counts per endpoint.
    pub close_timeout: Duration,
    /// The most connections of the whole server. `None` (the default) derives it from the limit of
    /// open descriptors (`RLIMIT_NOFILE`), which `bind`
    /// [raises](crate::ServerBuilder::raise_descriptor_limit) before: an eighth of the descriptors,
    /// and at least 64, are kept for the application. The log names the result when the server
    /// starts. A connection beyond it still gets pages, with `Connection: close`, so that probes
    /// see a server that is alive; an upgrade gets status 503 with `Retry-After`. At most 64 such
    /// connections, each of which has a descriptor, too, are kept at a time. A further one takes
    /// the place of the oldest that has said nothing or has got its response; without one it is
    /// dropped. Both get no response.
    ///
    /// Counts for the server.
    pub max_connections: Option<usize>,
    /// The most connections at once from one client address. `None` (the default) does not count
    /// them, because clients behind one NAT share an address: a school, an office, most phones.
    /// A connection beyond it still gets pages, an upgrade status 429 with `Retry-After`; the same
    /// 64 places as of [`max_connections`](Self::max_connections) are for such connections.
    ///
    /// The address is what [`Request::client_ip`](crate::Request::client_ip) returns, behind
    /// proxies that are [trusted](crate::ServerBuilder::trust_proxies) the client's own; of IPv6
    /// the first 64 bits count, IPv4 within IPv6 counts as IPv4. A connection counts from when it
    /// is accepted to when it is freed, whatever it says; one that comes through a trusted proxy,
    /// once that has told whose it is: with the PROXY protocol, else with the upgrade.
    ///
    /// Counts for the server, exactly, over all shards.
    pub max_connections_per_ip: Option<usize>,
    /// The most upgrades in one second from one client address: so many at once, then one whenever
    /// its part of a second has passed. `None` (the default) does not count them, for the same
    /// reason; the address is the same. Beyond it status 429 with `Retry-After`. Every valid
    /// request for an upgrade counts that comes from an allowed origin, whatever its handler says.
    ///
    /// Counts for the server, exactly, over all shards.
    pub max_upgrades_per_second_per_ip: Option<u32>,
    /// Where an outbox begins to press back, in bytes. Default 64 KiB. Above it the server reads
    /// no more from that client, until the client takes its answers.
    ///
    /// Counts per endpoint.
    pub outbox_high_water_bytes: usize,
    /// Where an outbox counts as drained, in bytes. Default 16 KiB: `on_drain` is called, reading
    /// goes on.
    ///
    /// Counts per endpoint.
    pub outbox_low_water_bytes: usize,
    /// The most bytes waiting for one client. Default 1 MiB; beyond it [`OverflowPolicy`] decides.
    ///
    /// Up to the high-water mark one more message is always accepted, however large. If the outbox
    /// exceeds the limit with it, all that waits up to the end of that message does not count
    /// against the messages behind it: news behind a snapshot of 3 MB has the whole limit for
    /// itself. So the bound is the mark, one message and this limit.
    ///
    /// Counts per endpoint.
    pub max_outbox_bytes: usize,
    /// The most bytes waiting in all outboxes of one shard. Default 256 MiB. Beyond it only those
    /// up to their high-water mark accept a message.
    ///
    /// Counts for the server.
    pub max_shard_outbox_bytes: usize,
    /// The most bytes of input that one shard keeps: messages that have begun and not ended, and
    /// what waits to be handled. Default 256 MiB. Beyond it a client that keeps more than 16 KiB
    /// there and sends more is closed with 1013; before its upgrade it is dropped. No longer
    /// message than that can be received, but in pieces.
    ///
    /// Counts for the server.
    pub max_shard_input_bytes: usize,
    /// What happens at [`max_outbox_bytes`](Self::max_outbox_bytes).
    ///
    /// Counts per endpoint.
    pub overflow: OverflowPolicy,
    /// How many threads run offloaded work. `None` (the default): four for each processor, and at
    /// least 16, because offloaded work mostly waits for something else: a disk, a database. A
    /// thread starts when work comes and all threads that have started are busy. It then stays
    /// until the server has ended.
    ///
    /// Counts for the server.
    pub max_offload_threads: Option<usize>,
    /// How much offloaded work may wait for a thread. Default 1024; beyond it the connection that
    /// offloads is closed with 1013, or its upgrade refused with 503 and `Retry-After`. An upgrade
    /// waits no longer than what is left of its [`handshake_timeout`](Self::handshake_timeout);
    /// then it is refused in the same way, and its work is not begun.
    ///
    /// Counts for the server.
    pub max_queued_jobs: usize,
    /// Handlers that keep their shard for longer, while all its other connections wait, are
    /// reported as a warning in the log, with their endpoint: the first time at once, then summed
    /// up every ten seconds. Default 50 ms, measured to a few milliseconds. What is timed is the
    /// handling of all that one connection has sent; where that takes no time worth telling, of up
    /// to eight connections of an endpoint, one after another.
    ///
    /// Counts per endpoint.
    pub slow_handler_after: Duration,
    /// The most topics that one connection may subscribe to. Default 256; beyond it
    /// `TooManyTopics`. A topic's name is kept once a shard, at most 1 KiB; whatever is published
    /// to a connection costs a look at each of its topics.
    ///
    /// Counts per endpoint.
    pub max_topics_per_connection: usize,
    /// The most envelopes in the mailbox of one shard. Default 16 Ki; beyond it `Overloaded`. The
    /// handlers of a shard may send as many again, to all other shards together, before they are
    /// refused; meanwhile their shard reads no input.
    ///
    /// Counts for the server.
    pub max_mailbox_envelopes: usize,
    /// The most bytes in the mailbox of one shard. Default 64 MiB; beyond it `Overloaded`. A
    /// message is always accepted into an empty mailbox. As much again may be on its way from the
    /// handlers of one shard to all others, and at most 64 MiB of what was published for the
    /// shard's own connections.
    ///
    /// Counts for the server.
    pub max_mailbox_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: 1 << 20,
            max_frame_bytes: 1 << 20,
            max_fragments: 1024,
            max_empty_frames_per_second: 256,
            max_head_bytes: 16 << 10,
            max_headers: 64,
            handshake_timeout: Duration::from_secs(5),
            keep_alive_timeout: Duration::from_secs(75),
            ping_after: Duration::from_secs(25),
            idle_timeout: Duration::from_secs(60),
            close_timeout: Duration::from_secs(5),
            max_connections: None,
            max_connections_per_ip: None,
            max_upgrades_per_second_per_ip: None,
            outbox_high_water_bytes: 64 << 10,
            outbox_low_water_bytes: 16 << 10,
            max_outbox_bytes: 1 << 20,
            max_shard_outbox_bytes: 256 << 20,
            max_shard_input_bytes: 256 << 20,
            overflow: OverflowPolicy::Close,
            max_offload_threads: None,
            max_queued_jobs: 1024,
            slow_handler_after: Duration::from_millis(50),
            max_topics_per_connection: 256,
            max_mailbox_envelopes: 16 << 10,
            max_mailbox_bytes: 64 << 20,
        }
    }
}

impl Limits {
    /// Cuts times short that mean "never", so that none of them leaves the calendar.
    pub(crate) fn tame(&mut self) {
        for time in [
            &mut self.handshake_timeout,
            &mut self.keep_alive_timeout,
            &mut self.ping_after,
            &mut self.idle_timeout,
            &mut self.close_timeout,
            &mut self.slow_handler_after,
        ] {
            *time = (*time).min(AGES);
        }
    }

    /// The rule that is broken by limits that contradict one another.
    pub(crate) fn broken_rule(&self) -> Option<&'static str> {
        let rules: [(bool, &'static str); 13] = [
            (
                self.max_message_bytes > 0 && self.max_frame_bytes > 0,
                "message and frame size are positive",
            ),
            (
                self.max_headers <= HEADER_COUNT_MAX && self.max_headers > 0,
                "max_headers is between 1 and 128",
            ),
            (self.max_head_bytes <= HEAD_BYTES_MAX, "max_head_bytes is at most 65 536"),
            (
                self.outbox_low_water_bytes <= self.outbox_high_water_bytes,
                "the low-water mark is not above the high-water mark",
            ),
            (
                self.outbox_high_water_bytes <= self.max_outbox_bytes,
                "the high-water mark is not above the outbox's limit",
            ),
            (
                self.max_outbox_bytes <= self.max_shard_outbox_bytes,
                "one outbox fits into its shard's sum",
            ),
            (
                (1..1 << 23).contains(&self.max_mailbox_envelopes),
                "max_mailbox_envelopes is between 1 and 8 388 607",
            ),
            (
                (1..=1 << 38).contains(&self.max_mailbox_bytes),
                "max_mailbox_bytes is between 1 and 256 GiB",
            ),
            (
                self.ping_after < self.idle_timeout || self.ping_after == Duration::MAX,
                "a ping is sent before the peer counts as gone",
            ),
            (self.max_offload_threads != Some(0), "at least one thread runs offloaded work"),
            (self.max_connections != Some(0), "at least one connection is allowed"),
            (self.max_connections_per_ip != Some(0), "an address may have a connection"),
            (self.max_upgrades_per_second_per_ip != Some(0), "an address may upgrade"),
        ];
        rules.iter().find(|(holds, _)| !holds).map(|&(_, rule)| rule)
    }

    /// Whether what counts for the server alone is the same.
    pub(crate) fn is_same_server(&self, server: &Self) -> bool {
        let of_the_server = |limits: &Self| {
            (
                (limits.max_head_bytes, limits.max_headers),
                (limits.handshake_timeout, limits.keep_alive_timeout),
                (
                    limits.max_connections,
                    limits.max_shard_outbox_bytes,
                    limits.max_shard_input_bytes,
                ),
                (limits.max_connections_per_ip, limits.max_upgrades_per_second_per_ip),
                (limits.max_mailbox_envelopes, limits.max_mailbox_bytes),
                (limits.max_offload_threads, limits.max_queued_jobs),
            )
        };
        of_the_server(self) == of_the_server(server)
    }
}
