//! What the server does to the process when it starts, and what the log says of it.

use std::time::Duration;

use log::LevelFilter;
use peregrine::{Limits, Server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{LIMIT, echo};
use crate::alone::alone;
use crate::common::{Client, reports};

/// Soft limits of descriptors, and what is left for connections of them.
const SOFT: u64 = 256;
const HARD: u64 = 1024;
const OF_SOFT: &str = "connections: at most 192; descriptors: at most 256;";
const OF_HARD: &str = "connections: at most 896; descriptors: at most 1024;";

fn limit_descriptors() {
    setrlimit(Resource::Nofile, Rlimit { current: Some(SOFT), maximum: Some(HARD) })
        .expect("limits may be lowered");
}

fn soft_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

fn hear_all() {
    reports::listen();
    log::set_max_level(LevelFilter::Info);
}

#[test]
fn the_limit_of_descriptors_is_raised_by_bind_unless_that_is_not_wanted() {
    let name = "the_limit_of_descriptors_is_raised_by_bind_unless_that_is_not_wanted";
    alone(&format!("start_and_stop::{name}"), LIMIT, || {
        hear_all();
        limit_descriptors();
        let app = || Server::builder().shards(2).websocket("/", echo());
        let running = app().raise_descriptor_limit(false).bind("127.0.0.1:0").expect("a port");
        assert_eq!(soft_limit(), Some(SOFT));
        drop(running.start().expect("threads"));
        assert_eq!(reports::with(OF_SOFT).len(), 1, "{:?}", reports::with(""));
        assert_eq!(reports::with("raised").len(), 0);

        let running = app().bind("127.0.0.1:0").expect("a port").start().expect("threads");
        assert_eq!(soft_limit(), Some(HARD));
        assert_eq!(reports::with("raised from 256 to 1024").len(), 1);
        assert_eq!(reports::with(OF_HARD).len(), 1, "{:?}", reports::with(""));
        // More than the soft limit would have let in.
        let clients: Vec<_> =
            (0..300).map(|_| Client::connect(running.local_addr(), "/")).collect();
        assert_eq!(running.hub().connection_counts().iter().sum::<usize>(), clients.len());
        // Nothing is left to be raised.
        reports::take();
        drop(app().bind("127.0.0.1:0").expect("a port"));
        assert_eq!(reports::with("raised").len(), 0);
    });
}

#[test]
fn the_log_tells_where_a_server_serves_with_which_limits_and_how_it_ended() {
    let name = "the_log_tells_where_a_server_serves_with_which_limits_and_how_it_ended";
    alone(&format!("start_and_stop::{name}"), LIMIT, || {
        hear_all();
        let mut limits = Limits::default();
        (limits.max_connections, limits.max_offload_threads) = (Some(77), Some(5));
        let app = Server::builder().shards(3).limits(limits).websocket("/", echo());
        let server = app.bind("127.0.0.1:0").expect("a port");
        assert_eq!(reports::with("serving").len(), 0, "nobody is served yet");
        let running = server.start().expect("threads");
        let address = running.local_addr();
        let start = reports::with(&format!(
            "INFO serving at {address}; shards: 3; connections: at most 77;"
        ));
        assert_eq!(start.len(), 1, "{:?}", reports::with(""));
        assert!(start[0].contains("threads for offloaded work: at most 5"), "{start:?}");

        let silent = Client::connect(address, "/");
        running.shutdown(Duration::from_millis(50)).expect("no thread panicked");
        let stop = reports::with(&format!(
            "INFO stopped serving at {address}; connections open at the shutdown: 1; dropped at \
             its end: 1"
        ));
        assert_eq!(stop.len(), 1, "{:?}", reports::with(""));
        drop(silent);
    });
}

#[test]
fn the_log_tells_of_default_limits_and_of_the_end_of_a_server_that_is_dropped() {
    let name = "the_log_tells_of_default_limits_and_of_the_end_of_a_server_that_is_dropped";
    alone(&format!("start_and_stop::{name}"), LIMIT, || {
        hear_all();
        let app = Server::builder().shards(1).websocket("/", echo());
        let running = app.bind("127.0.0.1:0").expect("a port").start().expect("threads");
        let address = running.local_addr();
        let parallelism = std::thread::available_parallelism().map_or(1, usize::from);
        let thread_count = (4 * parallelism).max(16);
        let text = format!("serving at {address}; shards: 1; ");
        let start = reports::with(&text);
        assert!(start[0].contains(&format!("offloaded work: at most {thread_count}")), "{start:?}");
        drop(running);
        assert_eq!(
            reports::with(&format!(
                "INFO stopped serving at {address}; connections open at the shutdown: 0"
            ))
            .len(),
            1
        );
        assert_eq!(reports::with("ERROR"), [""; 0]);
    });
}
