//! A port belongs to one server, unless all servers on it share it.

use std::error::Error as _;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use peregrine::{Error, RunningServer, Server, ServerBuilder};
use socket2::{Domain, Socket, Type};

use super::{LIMIT, echo};
use crate::common::{Client, within};
use crate::process::{Process, serve, server};
use crate::raw::{Raw, next_is_served, until};

/// Tells the other process what to do.
const ROLE: &str = "PEREGRINE_TEST_PORT";
const SHARD_COUNTS: [usize; 3] = [1, 2, 4];

fn exclusive(shard_count: usize) -> ServerBuilder {
    Server::builder().shards(shard_count).websocket("/echo", echo())
}

fn sharing(shard_count: usize) -> ServerBuilder {
    exclusive(shard_count).share_port()
}

/// Starts at an address, which must be possible.
fn begin(builder: ServerBuilder, address: impl Into<SocketAddr>) -> RunningServer {
    builder.bind(address.into()).expect("the address is free").start().expect("threads")
}

/// The address and the text of the refusal, which must come.
fn refused(builder: ServerBuilder, address: SocketAddr) -> (SocketAddr, String) {
    match builder.bind(address) {
        Err(error @ Error::Bind { .. }) => {
            let text = error.to_string();
            assert!(error.source().is_some(), "{text}");
            let Error::Bind { address, error } = error else { unreachable!("as before") };
            assert_eq!(error.kind(), ErrorKind::AddrInUse, "{text}");
            (address, text)
        }
        other => panic!("a second server at {address}: {other:?}"),
    }
}

/// A free port that the kernel draws for nobody. These tests give a port up and take it again: a
/// drawn one could have become the port of some client meanwhile.
fn spare_port() -> u16 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let drawn = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("Linux");
    let drawn_from: u32 =
        drawn.split_whitespace().next().and_then(|port| port.parse().ok()).expect("a port");
    let (lowest, own) = (2000, std::process::id().wrapping_mul(97));
    loop {
        let number = own.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed));
        let port = lowest + number % (drawn_from.max(lowest + 1) - lowest);
        let port = u16::try_from(port).expect("a port");
        if TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}

fn any_v4() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, spare_port()).into()
}

/// Addresses of every kind, each with the loopback address that reaches it.
fn kinds() -> [(SocketAddr, SocketAddr); 4] {
    let (v4, v6) = (any_v4(), SocketAddr::from((Ipv6Addr::LOCALHOST, spare_port())));
    [
        (v4, v4),
        ((Ipv4Addr::UNSPECIFIED, spare_port()).into(), v4),
        (v6, v6),
        ((Ipv6Addr::UNSPECIFIED, spare_port()).into(), v6),
    ]
}

fn each_pair(test: impl Fn(usize, usize) + Send + 'static) {
    within(LIMIT, move || {
        for first in SHARD_COUNTS {
            SHARD_COUNTS.into_iter().for_each(|second| test(first, second));
        }
    });
}

#[test]
fn a_second_server_on_the_port_is_refused_and_told_the_address_whether_it_shares_or_not() {
    each_pair(|first_count, second_count| {
        for (address, _) in kinds() {
            let first = begin(exclusive(first_count), address);
            let address = first.local_addr();
            for builder in [exclusive(second_count), sharing(second_count)] {
                let (named, text) = refused(builder, address);
                assert_eq!(named, address);
                assert!(text.contains(&address.to_string()), "{text}");
                assert!(text.contains("share_port()"), "{text}");
            }
            drop(first);
            drop(begin(sharing(second_count), address));
        }
    });
}

#[test]
fn an_exclusive_server_is_refused_where_others_share_and_one_more_that_shares_is_not() {
    each_pair(|first_count, second_count| {
        for (address, _) in kinds() {
            let first = begin(sharing(first_count), address);
            let address = first.local_addr();
            refused(exclusive(second_count), address);
            let second = begin(sharing(second_count), address);
            drop(first);
            refused(exclusive(first_count), address);
            drop(second);
            drop(begin(exclusive(first_count), address));
        }
    });
}

#[test]
fn an_address_within_one_that_is_taken_is_taken() {
    each_pair(|first_count, second_count| {
        for wildcard in
            [(Ipv4Addr::UNSPECIFIED, 0).into(), SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))]
        {
            let first = begin(exclusive(first_count), wildcard);
            let port = first.local_addr().port();
            for builder in [exclusive(second_count), sharing(second_count)] {
                let (named, _) = refused(builder, (Ipv4Addr::LOCALHOST, port).into());
                assert_eq!(named.port(), port);
            }
        }
        let first = begin(exclusive(first_count), any_v4());
        let port = first.local_addr().port();
        refused(exclusive(second_count), (Ipv4Addr::UNSPECIFIED, port).into());
        // The same address in the other family's notation.
        refused(sharing(second_count), (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port).into());
        // Another address of the machine is another one.
        drop(begin(exclusive(second_count), (Ipv4Addr::new(127, 0, 0, 2), port)));
    });
}

/// A second copy of a server at `localhost` must not take the other address of that name.
#[test]
fn the_next_address_of_a_name_is_tried_unless_the_port_of_the_one_before_is_taken() {
    within(LIMIT, || {
        let first = begin(exclusive(2), any_v4());
        let (taken, port) = (first.local_addr(), first.local_addr().port());
        let other = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), port));
        match exclusive(2).bind(&[taken, other][..]) {
            Err(Error::Bind { address, .. }) => assert_eq!(address, taken),
            bound => panic!("a second copy is at {bound:?}"),
        }
        // Reserved for documentation (RFC 5737): no machine has it.
        let nowhere = SocketAddr::from(([192, 0, 2, 1], port));
        let second = exclusive(2).bind(&[nowhere, other][..]).expect("the second one is free");
        assert_eq!(second.local_addr(), other);
    });
}

#[test]
fn connections_are_dealt_out_to_the_shards_whether_the_port_is_shared_or_not() {
    within(LIMIT, || {
        for builder in [exclusive, sharing] {
            for (address, way) in kinds() {
                let server = begin(builder(4), address);
                let way = SocketAddr::new(way.ip(), server.local_addr().port());
                let clients: Vec<_> = (0..64).map(|_| Raw::upgraded(way, "/echo")).collect();
                let counts = server.hub().connection_counts();
                assert!(counts.iter().all(|&count| (12..=20).contains(&count)), "{counts:?}");
                drop(clients);
            }
        }
    });
}

/// How many connections wait in the queue of each socket that listens at this port over IPv4.
fn queue_counts(port: u16) -> Vec<usize> {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let of_port = format!(":{port:04X}");
    let queue = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _, state) = (fields.next()?, fields.next()?, fields.next()?);
        let (_, waiting) = fields.next()?.split_once(':')?;
        let is_meant = local.ends_with(&of_port) && state == "0A";
        is_meant.then(|| usize::from_str_radix(waiting, 16).expect("a number"))
    };
    table.lines().filter_map(queue).collect()
}

/// Before any shard accepts, and deals out what it has accepted.
#[test]
fn the_kernel_deals_connections_out_to_all_listeners_whether_the_port_is_shared_or_not() {
    within(LIMIT, || {
        for builder in [exclusive, sharing] {
            let server = builder(4).bind(any_v4()).expect("a free port");
            let address = server.local_addr();
            let waiting: Vec<_> =
                (0..80).map(|_| TcpStream::connect(address).expect("it listens")).collect();
            let counts = queue_counts(address.port());
            assert_eq!((counts.len(), counts.iter().sum()), (4, waiting.len()), "{counts:?}");
            // By chance none of them is at the wrong end of that in 10^7 runs.
            assert!(counts.iter().all(|&count| count > 1), "{counts:?}");
        }
    });
}

#[test]
fn a_server_is_back_on_its_port_at_once_though_its_connections_linger_in_the_kernel() {
    within(LIMIT, || {
        let mut address = any_v4();
        for round in 0..6 {
            let builder = if round % 3 == 2 { sharing(2) } else { exclusive(1 + round % 2) };
            let server = begin(builder, address);
            address = server.local_addr();
            let clients: Vec<_> = (0..20).map(|_| Client::connect(address, "/echo")).collect();
            // The server ends the connections first: its side of them waits in TIME_WAIT.
            drop(server);
            drop(clients);
        }
    });
}

/// Many try at once, each in its own way: one gets the port, or all who share it.
#[test]
fn of_those_who_begin_at_the_same_time_only_one_gets_the_port_or_only_those_who_share_it() {
    within(LIMIT, || {
        for round in 0..60 {
            let free = TcpListener::bind(any_v4()).expect("a free port");
            let address = free.local_addr().expect("an address");
            drop(free);
            let barrier = std::sync::Barrier::new(4);
            let bind = |shares: bool, shard_count: usize| {
                let builder = if shares { sharing(shard_count) } else { exclusive(shard_count) };
                barrier.wait();
                builder.bind(address).ok().map(|server| (shares, server))
            };
            let bound: Vec<_> = thread::scope(|scope| {
                let threads = [(false, 2), (true, 2), (false, 1 + round % 4), (true, 1)]
                    .map(|(shares, count)| scope.spawn(move || bind(shares, count)));
                threads.into_iter().filter_map(|t| t.join().expect("no panic")).collect()
            });
            let exclusive_count = bound.iter().filter(|(shares, _)| !shares).count();
            let is_right = exclusive_count == 0 || bound.len() == 1;
            assert!(is_right, "{bound:?} in round {round}");
        }
    });
}

/// Not a test: the other process.
#[test]
fn another_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (kind, address) = role.split_once(' ').expect("a kind and an address");
    let builder = if kind == "share" { sharing(2) } else { exclusive(2) };
    let address: SocketAddr = address.parse().expect("an address");
    match builder.bind(address) {
        Ok(server) => serve(&server.start().expect("threads")),
        Err(error) => {
            use std::io::Write;
            writeln!(std::io::stdout(), "\nrefused: {error}").expect("a place to say so");
        }
    }
}

fn process(kind: &str, address: SocketAddr) -> Command {
    let mut command = server("port::another_process");
    command.env(ROLE, format!("{kind} {address}"));
    command
}

#[test]
fn another_process_is_refused_until_the_first_one_has_gone_however_it_went() {
    within(LIMIT, || {
        let first = Process::start(&mut process("alone", any_v4()));
        let address = first.address();
        for kind in ["alone", "share"] {
            let refusal = Process::start(&mut process(kind, address)).after("refused: ");
            assert!(refusal.contains(&address.to_string()), "{refusal}");
        }
        refused(exclusive(1), address);
        refused(sharing(1), address);
        // It is killed: nothing of it stays, in particular not its claim to the port.
        drop(first);
        let second = Process::start(&mut process("share", address));
        assert_eq!(second.address(), address);
        refused(exclusive(2), address);
        let third = begin(sharing(2), address);
        drop(second);
        next_is_served(address, "/echo");
        drop(third);
    });
}

#[test]
fn a_server_that_has_stopped_listening_gives_its_port_up_while_its_connections_end() {
    within(LIMIT, || {
        for shard_count in SHARD_COUNTS {
            let first = begin(exclusive(shard_count), any_v4());
            let address = first.local_addr();
            let mut staying = Raw::upgraded(address, "/echo");
            let stopping = thread::spawn(move || first.shutdown(LIMIT));
            // It listens no more once it has sent its Close frames, and waits for the answer.
            assert_eq!(staying.frame().expect("a Close frame").close().0, 1001);
            let mut next = None;
            until("the port is free", || {
                next = sharing(shard_count).bind(address).ok();
                next.is_some()
            });
            assert!(!stopping.is_finished());
            drop(staying);
            stopping.join().expect("no panic").expect("a clean end");
            drop(next);
        }
    });
}

/// A foreign program that listens, sharing the port or not, is somebody else, too.
#[test]
fn a_port_that_a_foreign_program_listens_on_is_taken() {
    within(LIMIT, || {
        for shares in [false, true] {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.set_reuse_port(shares).expect("an option");
            socket.bind(&any_v4().into()).expect("a free port");
            socket.listen(1).expect("it listens");
            let address = socket.local_addr().expect("an address").as_socket().expect("of IPv4");
            for shard_count in SHARD_COUNTS {
                refused(exclusive(shard_count), address);
            }
        }
    });
}
