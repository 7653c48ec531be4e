//! The load generator measures what is there and finds every fault: its program, run against
//! servers of ours and against servers that do wrong.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../../../tests/common/mod.rs"]
mod common;
#[path = "../../../tests/common/process.rs"]
mod process;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use peregrine::{Callbacks, Reply, ServerBuilder};
use rustix::process::Signal;
use serde_json::Value;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::{Message, WebSocket};

use self::common::{SHARD_COUNTS, start, within};
use self::process::Process;

const LIMIT: Duration = Duration::from_secs(120);

fn timed(test: impl FnOnce() + Send + 'static) {
    within(LIMIT, test);
}

/// The load generator.
fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_load"))
}

/// How a run ended: its exit code, and its JSON.
struct Outcome {
    code: Option<i32>,
    json: Value,
}

impl Outcome {
    /// A number in the JSON, by the path to it.
    fn number(&self, path: &str) -> f64 {
        let value = self.json.pointer(path).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("{path} is no number in {:#}", self.json))
    }

    fn is_clean(&self) -> bool {
        self.code == Some(0) && self.number("/errors/total") == 0.0
    }

    /// Fails with exactly this kind of error; returns how it is told.
    fn fault(&self, kind: &str) -> String {
        assert_eq!(self.code, Some(1), "{:#}", self.json);
        assert!(self.number(&format!("/errors/by_kind/{kind}")) >= 1.0, "{:#}", self.json);
        self.json["errors"]["first"].to_string()
    }
}

/// Runs the load generator with these words, blanks between them.
fn load(address: SocketAddr, path: &str, options: &str) -> Outcome {
    let mut command = program();
    command.arg(format!("ws://{address}{path}")).args(options.split_whitespace());
    outcome(&mut Process::start(command.args(["--quiet", "--json", "-"])))
}

fn outcome(process: &mut Process) -> Outcome {
    let (status, lines) = process.end(LIMIT);
    let json = serde_json::from_str(&lines.concat()).expect("JSON");
    Outcome { code: status.code(), json }
}

/// `/echo`, and `/all`, which broadcasts.
fn app(builder: ServerBuilder) -> ServerBuilder {
    let echo = Callbacks::<()>::new().on_message(|_, message| message.into());
    let all = Callbacks::<()>::new().on_message(|ws, message| {
        ws.broadcast(message).expect("room in the mailboxes");
        Reply::none()
    });
    builder.websocket("/echo", echo).websocket("/all", all)
}

#[test]
fn a_closed_loop_counts_each_message_once_whatever_its_size_and_kind() {
    timed(|| {
        for shard_count in SHARD_COUNTS {
            let server = start(shard_count, app);
            for options in [
                "--messages 1",
                "--messages 0500 --connections 7 --in-flight 3 --size 0",
                "--messages 0500 --connections 7 --in-flight 3 --size 1 --kind text --threads 3",
                "--messages 5000 --connections 1 --in-flight 1000 --size 125",
                "--messages 2000 --connections 20 --in-flight 32 --size 126 --kind text",
                "--messages 0200 --connections 5 --in-flight 5 --size 70000 --threads 2 --seed 9",
                "--messages 0010 --connections 2 --in-flight 5 --size 1000000 --kind text",
            ] {
                let outcome = load(server.local_addr(), "/echo", options);
                assert!(outcome.is_clean(), "{options}: {:#}", outcome.json);
                let count = outcome.number("/settings/messages");
                for path in ["/measured/sent", "/measured/received", "/latency_us/count"] {
                    assert_eq!(outcome.number(path), count, "{path} with {options}");
                }
                let [p50, p99, max] =
                    ["p50", "p99", "max"].map(|at| outcome.number(&format!("/latency_us/{at}")));
                assert!(0.0 < p50 && p50 <= p99 && p99 <= max);
                assert!(outcome.number("/measured/messages_per_second") > 0.0);
                assert!(outcome.number("/generator/cpu_us_per_message") > 0.0);
            }
        }
    });
}

#[test]
fn an_open_loop_sends_at_its_rate_and_the_warm_up_does_not_count() {
    timed(|| {
        let server = start(2, app);
        let options = "--rate 2000 --duration 1 --warm-up 0.5 --connections 50 --threads 2";
        let outcome = load(server.local_addr(), "/echo", options);
        assert!(outcome.is_clean(), "{:#}", outcome.json);
        // What is due at the window's edges may fall on either side.
        let count = outcome.number("/latency_us/count");
        assert!((1998.0..=2002.0).contains(&count), "{count}");
        let sent = outcome.number("/measured/sent");
        assert!((2998.0..=3002.0).contains(&sent), "{sent}");
        assert_eq!(outcome.number("/measured/seconds"), 1.0);
        assert_eq!(outcome.number("/generator/late_us/count"), sent);

        let options = "--rate 5000 --messages 1000 --in-flight 1 --connections 3";
        let outcome = load(server.local_addr(), "/echo", options);
        assert!(outcome.is_clean(), "{:#}", outcome.json);
        assert_eq!(outcome.number("/latency_us/count"), 1000.0);
        // The last of 1000 messages is due after 0.1998 s.
        assert!(outcome.number("/measured/seconds") > 0.19);
    });
}

#[test]
fn what_a_stall_delays_is_counted_from_when_it_was_due() {
    const STALL: Duration = Duration::from_millis(300);
    timed(|| {
        let count = AtomicUsize::new(0);
        let stalling = Callbacks::<()>::new().on_message(move |_, message| {
            if count.fetch_add(1, Ordering::Relaxed) == 300 {
                thread::sleep(STALL);
            }
            message.into()
        });
        let server = start(1, |builder| builder.websocket("/echo", stalling));
        let options = "--rate 1000 --duration 1 --connections 10";
        let outcome = load(server.local_addr(), "/echo", options);
        assert!(outcome.is_clean(), "{:#}", outcome.json);
        assert!(outcome.number("/latency_us/max") >= 290_000.0, "{:#}", outcome.json);
        // 300 of the 1000 messages were due during the stall: a tenth waited 200 ms and more.
        assert!(outcome.number("/latency_us/p90") >= 150_000.0, "{:#}", outcome.json);
        assert_eq!(outcome.number("/latency_us/count"), 1000.0);
    });
}

#[test]
fn a_broadcast_counts_every_delivery_to_every_member() {
    timed(|| {
        for shard_count in SHARD_COUNTS {
            let server = start(shard_count, app);
            for options in [
                "--messages 1 --connections 1",
                "--messages 50 --connections 30 --threads 3",
                "--messages 200 --connections 20 --in-flight 16 --threads 2 --kind text",
                "--messages 50 --connections 10 --rate 500 --size 3000 --threads 2",
            ] {
                let options = format!("--mode broadcast {options}");
                let outcome = load(server.local_addr(), "/all", &options);
                assert!(outcome.is_clean(), "{options}: {:#}", outcome.json);
                let count = outcome.number("/settings/messages");
                assert_eq!(outcome.number("/measured/sent"), count);
                let delivery_count = count * outcome.number("/settings/connections");
                for path in ["/measured/received", "/latency_us/count"] {
                    assert_eq!(outcome.number(path), delivery_count, "{path} with {options}");
                }
            }
        }
    });
}

#[test]
fn connections_that_hold_stall_or_come_and_go_are_counted() {
    timed(|| {
        let server = start(2, app);
        let address = server.local_addr();
        for mode in ["idle", "stall"] {
            let options = format!("--mode {mode} --connections 300 --duration 0.2 --threads 2");
            let outcome = load(address, "/all", &options);
            assert!(outcome.is_clean(), "{:#}", outcome.json);
            assert_eq!(outcome.number("/opening/opened"), 300.0);
            assert_eq!(outcome.number("/opening/upgrade_us/count"), 300.0);
        }
        for pace in ["", "--rate 1000", "--rate 500 --threads 3"] {
            let options = format!("--mode visit --connections 20 --messages 200 {pace}");
            let outcome = load(address, "/echo", &options);
            assert!(outcome.is_clean(), "{pace}: {:#}", outcome.json);
            for path in ["/opening/opened", "/measured/received", "/latency_us/count"] {
                assert_eq!(outcome.number(path), 200.0, "{path} with {pace}");
            }
        }
    });
}

#[test]
fn the_servers_process_is_looked_at() {
    timed(|| {
        let server = start(1, app);
        let pid = std::process::id();
        let options = format!("--pid {pid} --connections 50 --messages 20000 --in-flight 8");
        let outcome = load(server.local_addr(), "/echo", &options);
        assert!(outcome.is_clean(), "{:#}", outcome.json);
        assert!(outcome.number("/server/cpu_us_per_message") > 0.0);
        assert!(outcome.number("/server/rss_bytes_before") > 100_000.0);
        assert!(outcome.number("/server/rss_bytes_open") > 100_000.0);
        assert!(outcome.number("/server/voluntary_switches") >= 1.0);
        let instructions = &outcome.json["server"]["instructions_per_message"];
        assert!(instructions.is_null() || instructions.as_f64() > Some(100.0), "{instructions}");
    });
}

#[test]
fn connections_come_from_all_addresses_in_turn() {
    timed(|| {
        let peers = Arc::new(Mutex::new(BTreeSet::<IpAddr>::new()));
        let seen = Arc::clone(&peers);
        let endpoint = Callbacks::<()>::new().on_connect(move |ws| {
            seen.lock().expect("nobody panics").insert(ws.peer_addr().ip());
            Reply::none()
        });
        let server = start(1, |builder| builder.websocket("/echo", endpoint));
        let options = "--mode idle --connections 10 --duration 0.01 --from 127.0.0.2,127.0.0.3";
        assert!(load(server.local_addr(), "/echo", options).is_clean());
        let expected = ["127.0.0.2", "127.0.0.3"].map(|ip| ip.parse().expect("an address"));
        assert_eq!(*peers.lock().expect("nobody panics"), BTreeSet::from(expected));
    });
}

#[test]
fn an_interrupt_ends_it_early_with_the_report() {
    timed(|| {
        let is_served = Arc::new(AtomicUsize::new(0));
        let served = Arc::clone(&is_served);
        let echo = Callbacks::<()>::new().on_message(move |_, message| {
            served.fetch_add(1, Ordering::Relaxed);
            message.into()
        });
        let server = start(1, |builder| builder.websocket("/echo", echo));
        let mut command = program();
        let url = format!("ws://{}/echo", server.local_addr());
        command.args([&url, "--duration", "600", "--rate", "100", "--quiet", "--json", "-"]);
        let mut process = Process::start(&mut command);
        common::eventually(|| is_served.load(Ordering::Relaxed) >= 10);
        process.signal(Signal::INT);
        let outcome = outcome(&mut process);
        assert!(outcome.is_clean(), "{:#}", outcome.json);
        assert_eq!(outcome.json["is_interrupted"], true);
        assert!(outcome.number("/latency_us/count") >= 10.0);
    });
}

/// A server of tungstenite's, not of ours: what it does with a message is given, and so often as
/// there are messages.
fn foreign(serve: fn(&mut WebSocket<TcpStream>, usize, Message)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            thread::spawn(move || {
                let Ok(mut socket) = tungstenite::accept(socket) else { return };
                let mut number = 0;
                while let Ok(message) = socket.read() {
                    if message.is_binary() || message.is_text() {
                        number += 1;
                        serve(&mut socket, number, message);
                    }
                }
            });
        }
    });
    address
}

/// Sends; the client may be gone.
fn send(socket: &mut WebSocket<TcpStream>, message: Message) {
    let _ = socket.send(message);
}

const TEN: &str = "--connections 2 --messages 20 --in-flight 2";

#[test]
fn a_wrong_message_is_found_whatever_is_wrong_about_it() {
    timed(|| {
        let address = foreign(|socket, number, message| {
            let mut bytes = message.into_data().to_vec();
            if number == 5 {
                bytes[17] ^= 4;
            }
            send(socket, Message::binary(bytes));
        });
        let told = load(address, "/", TEN).fault("wrong");
        assert!(told.contains("byte 17 is"), "{told}");

        let address = foreign(|socket, number, message| {
            let bytes = message.into_data();
            let end = if number == 3 { 60 } else { bytes.len() };
            send(socket, Message::Binary(bytes.slice(..end)));
        });
        let told = load(address, "/", TEN).fault("wrong");
        assert!(told.contains("64 bytes were sent: binary of 60 bytes came"), "{told}");

        let address = foreign(|socket, _, message| {
            let text = message.to_text().expect("text").to_owned();
            send(socket, Message::binary(text));
        });
        let told = load(address, "/", "--messages 1 --kind text").fault("wrong");
        assert!(told.contains("it is of the other kind"), "{told}");

        // A message left out: the next comes in its place.
        let address = foreign(|socket, number, message| {
            if number != 4 {
                send(socket, message);
            }
        });
        load(address, "/", "--connections 1 --messages 20 --in-flight 9").fault("wrong");
    });
}

#[test]
fn a_missing_message_and_one_too_many_are_found() {
    timed(|| {
        let address = foreign(|_, _, _| {});
        let outcome = load(address, "/", "--messages 3 --connections 3");
        outcome.fault("missing");
        assert_eq!(outcome.number("/errors/by_kind/missing"), 3.0);

        let address = foreign(|socket, _, message| {
            send(socket, message.clone());
            send(socket, message);
        });
        let told = load(address, "/", "--messages 1").fault("surplus");
        assert!(told.contains("nothing was to come, but binary of 64 bytes came"), "{told}");
    });
}

#[test]
fn a_connection_that_the_server_ends_is_an_error_with_its_code() {
    timed(|| {
        let address = foreign(|socket, number, message| {
            if number == 7 {
                let code = CloseCode::Library(4321);
                let _ = socket.close(Some(CloseFrame { code, reason: "enough".into() }));
            } else {
                send(socket, message);
            }
        });
        let outcome = load(address, "/", TEN);
        let told = outcome.fault("close");
        assert!(told.contains("the server sent Close 4321"), "{told}");
        assert_eq!(outcome.number("/errors/close_codes/4321"), 2.0);
        assert!(outcome.number("/errors/by_kind/missing") >= 2.0);

        let address = foreign(|socket, _, _| {
            let _ = socket.get_ref().shutdown(std::net::Shutdown::Both);
        });
        load(address, "/", TEN).fault("end");
    });
}

#[test]
fn pings_and_fragments_are_no_errors() {
    timed(|| {
        let address = foreign(|socket, number, message| {
            send(socket, Message::Ping(vec![0x82; number % 125].into()));
            let bytes = message.into_data();
            let (first, rest) = bytes.split_at(number % bytes.len());
            let piece = |bytes: &[u8], data, is_last| {
                Message::Frame(Frame::message(bytes.to_vec(), OpCode::Data(data), is_last))
            };
            send(socket, piece(first, Data::Binary, false));
            send(socket, Message::Pong(vec![1; 3].into()));
            send(socket, piece(rest, Data::Continue, true));
        });
        let outcome = load(address, "/", "--connections 3 --messages 300 --in-flight 4");
        assert!(outcome.is_clean(), "{:#}", outcome.json);
        assert_eq!(outcome.number("/measured/received"), 300.0);
        // Each is answered once at least; all that came before the end.
        assert!(outcome.number("/measured/pings") >= 300.0);
    });
}

#[test]
fn a_server_that_is_not_there_or_refuses_is_an_error() {
    timed(|| {
        let server = start(1, app);
        let outcome = load(server.local_addr(), "/nowhere", "--connections 3");
        let told = outcome.fault("upgrade");
        assert!(told.contains("refused with 404 Not Found"), "{told}");
        assert_eq!(outcome.number("/errors/total"), 3.0);

        // Bound, and nobody listens.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
        let address = socket.local_addr().expect("an address").as_socket().expect("an address");
        let told = load(address, "/", "--connections 3").fault("connect");
        assert!(told.contains("refused"), "{told}");
    });
}

#[test]
fn the_summary_is_for_people_and_a_wrong_command_line_is_explained() {
    timed(|| {
        let server = start(1, app);
        let mut command = program();
        let url = format!("ws://{}/echo", server.local_addr());
        command.args([&url, "--messages", "100", "--pid", &std::process::id().to_string()]);
        let output = command.output().expect("it runs");
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success());
        for word in ["100 opened", "messages      100 in", "p99.9", "% busy", "errors        none"]
        {
            assert!(text.contains(word), "{word} is not in {text}");
        }

        for (arguments, word) in [
            (&[][..], "A URL is needed"),
            (&["http://a"], "ws://"),
            (&[&url, "--conections", "1"], "no option --conections"),
            (&[&url, "--mode", "echos"], "echo, broadcast, idle, visit, stall"),
        ] {
            let output = program().args(arguments).output().expect("it runs");
            let text = String::from_utf8(output.stderr).expect("text");
            assert!(output.status.code() == Some(2) && text.contains(word), "{text}");
        }
        let output = program().arg("--help").output().expect("it runs");
        assert!(output.status.success() && output.stdout.starts_with(b"Puts a WebSocket server"));
    });
}
