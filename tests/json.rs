//! Messages as JSON, with the feature `serde`.

#![cfg(feature = "serde")]
#![allow(clippy::expect_used, reason = "a test says what it expects")]

mod common;

use std::collections::HashMap;
use std::time::Duration;

use peregrine::{Callbacks, Json, Reply};
use serde::{Deserialize, Serialize};

use crate::common::{Client, start, within};

/// How long any of these tests may take.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize, Deserialize)]
struct Move<'m> {
    piece: &'m str,
    to: (u8, u8),
}

#[test]
fn json_comes_in_by_text_or_bytes_and_goes_out_as_text() {
    within(LIMIT, || {
        let game =
            Callbacks::<()>::new().on_message(|ws, message| match message.json::<Move<'_>>() {
                Ok(Move { piece, to: (x, y) }) => {
                    ws.send_json(&[x, y]).expect("room");
                    Reply::json(&Move { piece, to: (y, x) })
                }
                Err(_) => "not a move".into(),
            });
        let server = start(1, |builder| builder.websocket("/", game));
        let mut client = Client::connect(server.local_addr(), "/");
        let rook = r#" {"to": [1, 7], "piece": "rook"}"#;
        client.send(rook);
        client.send_bytes(rook);
        for _ in ["by text", "by bytes"] {
            assert_eq!(client.text(), "[1,7]");
            assert_eq!(client.text(), r#"{"piece":"rook","to":[7,1]}"#);
        }
        for hostile in ["", "{", "null", r#"{"piece":"rook","to":[1,700]}"#, &"[".repeat(100_000)] {
            client.send(hostile);
            client.send_bytes(b"\xFF{}".as_slice());
            assert_eq!((client.text(), client.text()), ("not a move".into(), "not a move".into()));
        }
    });
}

#[test]
fn offloaded_work_may_answer_in_json() {
    within(LIMIT, || {
        let game = Callbacks::<()>::new().on_message(|_ws, message| {
            let text = message.as_text().unwrap_or_default().to_owned();
            Reply::offload(move || text.parse().ok().map(|column: u8| Json([column, 7])))
        });
        let server = start(1, |builder| builder.websocket("/", game));
        let mut client = Client::connect(server.local_addr(), "/");
        for text in ["none", "3"] {
            client.send(text);
        }
        assert_eq!(client.text(), "[3,7]");
    });
}

#[test]
fn a_value_that_is_no_json_panics_and_closes_its_own_connection() {
    within(LIMIT, || {
        let pairs = HashMap::from([((1, 2), 3)]);
        let wrong = Callbacks::<()>::new().on_message(move |_, _| Reply::json(&pairs));
        let server = start(1, |builder| builder.websocket("/", wrong));
        let mut client = Client::connect(server.local_addr(), "/");
        client.send("?");
        assert_eq!(client.close_code(), 1011);
    });
}
