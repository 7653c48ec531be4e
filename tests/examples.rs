//! The programs in `examples/` do what they say: each one's own server, over real sockets. Those of
//! `seeds.rs`, `chat.rs`, `ticker.rs` and `graceful.rs` have tests of their own: `seeds`,
//! `browser`, `ticker`, `replacement`.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]
#![allow(dead_code, unreachable_pub, reason = "the examples' mains are not called here")]

mod common;
#[path = "common/raw.rs"]
mod raw;

#[path = "../examples/auth_echo.rs"]
mod auth_echo;
#[cfg(feature = "serde")]
#[path = "../examples/with_crates/database.rs"]
mod database;
#[path = "../examples/rooms.rs"]
mod rooms;
#[path = "../examples/with_crates/tokio.rs"]
mod tokio_example;
#[path = "../examples/upload.rs"]
mod upload;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tungstenite::client::IntoClientRequest;

use self::common::{Client, SHARD_COUNTS, connect, eventually, start, within};

const LIMIT: Duration = Duration::from_secs(120);

fn each(test: impl Fn(usize) + Send + 'static) {
    within(LIMIT, move || SHARD_COUNTS.into_iter().for_each(test));
}

/// A folder of a test's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("peregrine-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Connects, with one more header; the error is the status of the refusal.
fn connect_with(address: SocketAddr, path: &str, header: [&'static str; 2]) -> Result<Client, u16> {
    let mut request = format!("ws://{address}{path}").into_client_request().expect("a request");
    request.headers_mut().insert(header[0], header[1].parse().expect("a value"));
    match tungstenite::client(request, connect(address)) {
        Ok((client, _)) => Ok(Client(client)),
        Err(error) => Err(status(error)),
    }
}

fn status<R: tungstenite::handshake::HandshakeRole>(error: tungstenite::HandshakeError<R>) -> u16 {
    match error {
        tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response)) => {
            response.status().as_u16()
        }
        other => panic!("a refusal was expected, not {other}"),
    }
}

fn refusal(address: SocketAddr, path: &str) -> u16 {
    match Client::try_connect(address, path).err() {
        Some(tungstenite::Error::Http(response)) => response.status().as_u16(),
        other => panic!("a refusal was expected, not {other:?}"),
    }
}

#[test]
fn only_members_have_their_words_echoed_under_their_name() {
    each(|shard_count| {
        let folder = Folder::new(&format!("members-{shard_count}"));
        let file = folder.0.join("members");
        fs::write(&file, "one Alice\ntwo Bob\n").expect("a file");
        let members = auth_echo::Members { file: file.clone() };
        let server = start(shard_count, |_| auth_echo::app(members).shards(shard_count));
        let address = server.local_addr();
        for (header, name) in
            [(["Authorization", "Bearer one"], "Alice"), (["Cookie", "a=b; token=two"], "Bob")]
        {
            let mut client = connect_with(address, "/echo", header).expect("a member");
            client.send("hello");
            assert_eq!(client.text(), format!("{name}: hello"));
            client.send_bytes(*b"\x00\xFF");
            assert_eq!(client.bytes(), b"\x00\xFF");
        }
        for value in ["Bearer three", "Bearer ", "Basic one", "one", "Bearer one Alice"] {
            assert_eq!(connect_with(address, "/echo", ["Authorization", value]).err(), Some(401));
        }
        assert_eq!(refusal(address, "/echo"), 401);
        // Struck off, and the file gone: both count from the next upgrade on.
        fs::write(&file, "two Bob\n").expect("a file");
        let header = ["Authorization", "Bearer one"];
        assert_eq!(connect_with(address, "/echo", header).err(), Some(401));
        fs::remove_file(&file).expect("a file");
        assert_eq!(connect_with(address, "/echo", header).err(), Some(503));
    });
}

#[test]
fn who_is_in_a_room_hears_its_words_and_who_comes_and_goes() {
    each(|shard_count| {
        let server = start(shard_count, |_| rooms::app().shards(shard_count));
        let address = server.local_addr();
        let enter = |room: &str, name: &str| {
            let mut client = Client::connect(address, &format!("/rooms/{room}?name={name}"));
            (client.text(), client)
        };
        let (welcome, mut alice) = enter("lobby", "alice");
        assert_eq!(welcome, "* welcome to lobby, alice, 1 are here");
        let (welcome, mut bob) = enter("lobby", "bob+b.");
        assert_eq!(welcome, "* welcome to lobby, bob b., 2 are here");
        assert_eq!(alice.text(), "* bob b. joined, 2 are here");
        let (welcome, mut carol) = enter("caf%C3%A9", "carol");
        assert_eq!(welcome, "* welcome to café, carol, 1 are here");
        bob.send("hello");
        for client in [&mut alice, &mut bob] {
            assert_eq!(client.text(), "bob b.: hello");
        }
        bob.0.close(None).expect("the server reads");
        assert_eq!(alice.text(), "* bob b. left, 1 are here");
        // Nothing of all that went to the other room.
        carol.send("alone?");
        assert_eq!(carol.text(), "carol: alone?");
        for path in ["/rooms/lobby", "/rooms/lobby?name=", "/rooms/lobby?name=a%0Ab"] {
            assert_eq!(refusal(address, path), 400);
        }
        assert_eq!(refusal(address, "/rooms?name=alice"), 404);
    });
}

#[cfg(feature = "serde")]
#[test]
fn a_database_answers_requests_in_order_and_keeps_what_was_put() {
    each(|shard_count| {
        let folder = Folder::new(&format!("database-{shard_count}"));
        let file = folder.0.join("values");
        let store = database::Store::open(&file).expect("a database");
        let server = start(shard_count, |_| database::app(store).shards(shard_count));
        let mut client = Client::connect(server.local_addr(), "/database");
        let exchange = [
            (r#"{"id":1,"op":"get","key":"a"}"#, r#"{"id":1}"#),
            (r#"{"id":2,"op":"put","key":"a","value":"\"é\""}"#, r#"{"id":2}"#),
            (r#"{"id":3,"op":"get","key":"a"}"#, r#"{"id":3,"value":"\"é\""}"#),
            (r#"{"id":4,"op":"put","key":"b","value":""}"#, r#"{"id":4}"#),
            (r#"{"id":5,"op":"delete","key":"a"}"#, r#"{"id":5}"#),
            (r#"{"id":6,"op":"get","key":"a"}"#, r#"{"id":6}"#),
        ];
        // All at once: each request sees what the ones before it have done.
        exchange.iter().for_each(|(request, _)| client.send(*request));
        for (_, answer) in exchange {
            assert_eq!(client.text(), answer);
        }
        for wrong in ["", "{}", r#"{"id":7,"op":"drop"}"#] {
            client.send(wrong);
            assert!(client.text().starts_with(r#"{"id":0,"error":""#));
        }
        drop(client);
        server.shutdown(Duration::from_secs(5)).expect("a clean end");
        // The last worker lets go of the file.
        let mut again = database::Store::open(&file);
        eventually(|| {
            again.is_ok() || {
                again = database::Store::open(&file);
                again.is_ok()
            }
        });
        let store = again.expect("a database");
        let server = start(shard_count, |_| database::app(store).shards(shard_count));
        let mut client = Client::connect(server.local_addr(), "/database");
        client.send(r#"{"id":8,"op":"get","key":"b"}"#);
        assert_eq!(client.text(), r#"{"id":8,"value":""}"#);
    });
}

#[test]
fn a_file_goes_up_and_comes_down_unchanged() {
    each(|shard_count| {
        let folder = Folder::new(&format!("upload-{shard_count}"));
        let files = upload::Files(folder.0.clone());
        let server = start(shard_count, |_| upload::app(files).shards(shard_count));
        let connect = |path: &str| Client::connect(server.local_addr(), path);
        let content: Vec<u8> = (0..251_u8).cycle().take(5 << 20).collect();
        for (name, length) in [("large.bin", content.len()), ("small.bin", 10), ("empty.bin", 0)] {
            let mut client = connect(&format!("/upload/{name}"));
            client.send_bytes(&content[..length]);
            let mut told = 0;
            let end = format!("stored {name}, {length} bytes");
            loop {
                let text = client.text();
                if text == end {
                    break;
                }
                let bytes = text.strip_suffix(" bytes").and_then(|bytes| bytes.parse().ok());
                let bytes: usize = bytes.unwrap_or_else(|| panic!("{text:?}"));
                assert!(told < bytes && bytes < length, "{told} {bytes}");
                told = bytes;
            }
            assert!(told >= (length >> 20).saturating_sub(1) << 20, "{told} of {length}");
            assert_eq!(client.close_code(), 1000);
            let mut client = connect(&format!("/download/{name}"));
            assert!(client.bytes() == content[..length]);
            assert_eq!(client.close_code(), 1000);
        }
        assert_eq!(fs::read_dir(&folder.0).expect("a folder").count(), 3);
    });
}

#[test]
fn an_upload_that_breaks_off_or_is_too_large_or_leads_elsewhere_leaves_nothing() {
    each(|shard_count| {
        let folder = Folder::new(&format!("broken-{shard_count}"));
        let files = upload::Files(folder.0.clone());
        let server = start(shard_count, |_| upload::app(files).shards(shard_count));
        let count = || fs::read_dir(&folder.0).expect("a folder").count();

        let mut client = raw::Raw::upgraded(server.local_addr(), "/upload/half");
        client.send(raw::header(raw::BINARY, 100 << 20));
        client.send(vec![0; 3 << 20]);
        assert!(client.text().ends_with(" bytes"));
        assert_eq!(count(), 1);
        drop(client);
        eventually(|| count() == 0);

        let mut client = raw::Raw::upgraded(server.local_addr(), "/upload/large");
        client.send(raw::header(raw::BINARY, upload::FILE_BYTES as u64 + 1));
        assert_eq!(client.closed().0, 1009);
        for path in ["/upload/..%2Fpasswd", "/upload/.hidden", "/download/a%00b"] {
            assert_eq!(refusal(server.local_addr(), path), 400);
        }
        let mut client = Client::connect(server.local_addr(), "/download/missing");
        assert_eq!(client.close_code(), 1011);
        assert_eq!(count(), 0);
    });
}

#[test]
fn handlers_await_what_a_tokio_runtime_drives_beside_them() {
    each(|shard_count| {
        let runtime = ::tokio::runtime::Runtime::new().expect("a runtime");
        let rates = tokio_example::start_service(&runtime).expect("a service");
        let server = start(shard_count, |_| tokio_example::app(rates).shards(shard_count));
        let mut client = Client::connect(server.local_addr(), "/desk?token=open-sesame");
        assert_eq!(client.text(), "Good day, Alice. Which currency?");
        client.send("CHF");
        client.send("XXX\nmember open-sesame");
        assert_eq!(client.text(), "CHF 0.94");
        assert!(client.text().starts_with("there is no rate for XXX"));
        assert_eq!(refusal(server.local_addr(), "/desk?token=guessed"), 401);
        let clock = tokio_example::tell_time(server.hub(), Duration::from_millis(1));
        let clock = runtime.spawn(clock);
        assert!(client.text().starts_with("open for "));
        drop(client);
        drop(server);
        runtime.block_on(clock).expect("the clock ends with the server");
        // The service is gone: the desk says so, and lives on.
        let runtime = ::tokio::runtime::Runtime::new().expect("a runtime");
        let rates = tokio_example::start_service(&runtime).expect("a service");
        let server = start(shard_count, |_| tokio_example::app(rates).shards(shard_count));
        drop(runtime);
        assert_eq!(refusal(server.local_addr(), "/desk?token=open-sesame"), 503);
    });
}
