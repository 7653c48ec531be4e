//! The peers do what is measured: each returns every message as it was sent, and says to all what
//! one says.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;

use self::common::client::{Batch, Buffer, Client, Kind};
use self::common::{NAMES, PROGRAM, Process};

/// Sizes at which the header changes its form, and the largest message.
const SIZES: [usize; 7] = [0, 1, 125, 126, 65_535, 65_536, 1 << 20];

const MEMBER_COUNT: usize = 50;

/// With one shard and with two.
fn echoes_all(name: &str) {
    for shard_count in [1, 2] {
        let server = Process::start(name, shard_count);
        let mut client = Client::connect(server.address(), "/echo");
        let mut buffer = Buffer::default();
        for kind in [Kind::Text, Kind::Binary] {
            for (salt, size) in SIZES.into_iter().enumerate() {
                // By itself, and what is not large with others at once.
                for &count in if size < 1 << 20 { &[1, 3][..] } else { &[1] } {
                    let batch = Batch::new(kind, size, count, salt);
                    client.send(&batch);
                    client.exchange(&batch, &mut buffer);
                }
            }
        }
    }
}

/// Members say something in turn; all receive it once, and nothing else until the next word.
fn reaches_all_once(name: &str) {
    for shard_count in [1, 2] {
        let server = Process::start(name, shard_count);
        let connect = |_| Client::connect(server.address(), "/all");
        let mut members: Vec<_> = (0..MEMBER_COUNT).map(connect).collect();
        let mut buffer = Buffer::default();
        for salt in 1..=MEMBER_COUNT {
            let kind = if salt % 2 == 0 { Kind::Text } else { Kind::Binary };
            let batch = Batch::new(kind, [0, 64, 70_000][salt % 3], 4, salt);
            // Who does not take answers may not ask: the speaker listens first.
            members.rotate_left(1);
            members[0].send_all(&batch);
            for member in &mut members {
                member.receive(&batch, &mut buffer);
            }
        }
    }
}

/// Only the two endpoints upgrade.
fn refuses_other_paths(name: &str) {
    let server = Process::start(name, 1);
    let mut stream = TcpStream::connect(server.address()).expect("it listens");
    let request = "GET /other HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\n\
                   Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("it answers");
    assert!(line.starts_with("HTTP/1.1 404 "), "{line}");
}

/// A test a peer, so that they run at the same time and a failure names its culprit.
macro_rules! each_peer {
    ($($module:ident $name:literal)*) => {
        $(mod $module {
            #[test]
            fn echoes_every_kind_and_size() {
                super::echoes_all($name);
            }

            #[test]
            fn reaches_every_member_exactly_once() {
                super::reaches_all_once($name);
            }

            #[test]
            fn refuses_other_paths() {
                super::refuses_other_paths($name);
            }
        })*

        #[test]
        fn every_peer_is_tested() {
            assert_eq!([$($name),*], NAMES);
        }
    };
}

each_peer! {
    peregrine "peregrine"
    tokio_tungstenite "tokio-tungstenite"
    fastwebsockets "fastwebsockets"
    axum "axum"
    actix_ws "actix-ws"
}

/// What the program says to arguments that it cannot understand.
fn complaint(arguments: &[&str]) -> String {
    let output = Command::new(PROGRAM).args(arguments).output().expect("the program starts");
    assert_eq!(output.status.code(), Some(2), "{arguments:?} is refused");
    String::from_utf8(output.stderr).expect("UTF-8")
}

#[test]
fn an_unknown_name_is_refused_with_those_that_are_known() {
    let said = complaint(&["serve", "nobody", "127.0.0.1:0"]);
    assert!(said.contains("there is no server \"nobody\""), "{said}");
    assert!(NAMES.iter().all(|name| said.contains(name)), "{said}");
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    assert!(complaint(&[]).contains("usage: serve NAME ADDRESS"));
    assert!(complaint(&["serve", "axum", "here"]).contains("\"here\" is no address"));
    let no_shards = ["serve", "axum", "127.0.0.1:0", "--shards", "0"];
    assert!(complaint(&no_shards).contains("\"0\" is no number of shards"));
}
