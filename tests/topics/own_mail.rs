//! What is in the mailbox when a handler makes a call that others may see, and is for the handler's
//! own connection: it takes effect before the call, in the middle of a run of messages.

use std::time::Duration;

use peregrine::{Callbacks, CloseCode, Hub, Reply, RunningServer, WebSocket};

use super::LIMIT;
use super::common::{eventually, start, within};
use super::raw::{BINARY, CLOSE, Frame, Raw, TEXT, frame};

const TOPIC: &str = "news";

/// What the handler asks of the hub, for its own connection, before it publishes "news".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mail {
    Send,
    LongSend,
    Publish,
    Subscribe,
    Unsubscribe,
    Close,
    Abort,
    Pieces,
    UnfinishedPieces,
}

fn post(ws: &WebSocket<'_, ()>, mail: Mail) {
    let (hub, own) = (ws.hub(), ws.id());
    let long = "l".repeat(100_000);
    match mail {
        Mail::Send => hub.send_to(own, "mail").expect("room"),
        Mail::LongSend => hub.send_to(own, long).expect("room"),
        Mail::Publish => hub.publish(TOPIC, "mail").expect("room"),
        Mail::Subscribe => hub.subscribe(own, TOPIC).expect("room"),
        Mail::Unsubscribe => hub.unsubscribe(own, TOPIC).expect("room"),
        Mail::Close => hub.close_with(own, CloseCode::from(4000), "mail").expect("room"),
        Mail::Abort => hub.abort(own).expect("room"),
        Mail::Pieces => {
            let mut stream = ws.stream::<str>().expect("no other");
            stream.write("ma").expect("room");
            stream.write("il").expect("room");
            stream.finish().expect("room");
        }
        Mail::UnfinishedPieces => {
            let mut stream = ws.stream::<str>().expect("no other");
            stream.write("mail").expect("room");
        }
    }
}

fn serve(mail: Mail) -> RunningServer {
    let handler = Callbacks::<()>::new()
        .on_connect(move |ws| {
            if mail != Mail::Subscribe {
                ws.subscribe(TOPIC).expect("one topic");
            }
            Reply::none()
        })
        .on_message(move |ws, message| {
            if message.as_text() == Some("now") {
                ws.send("before").expect("room");
                post(ws, mail);
                ws.publish(TOPIC, "news").expect("room");
            }
            message.into()
        });
    let witness = Callbacks::<()>::new().on_connect(|ws| {
        ws.subscribe(TOPIC).expect("one topic");
        "hello".into()
    });
    start(1, |builder| builder.websocket("/", handler).websocket("/witness", witness))
}

/// The data that a client gets up to the echo of "z", or to the end, and the code of a Close frame.
fn got(raw: &mut Raw) -> (Vec<String>, Option<u16>) {
    let (mut texts, mut part) = (Vec::<String>::new(), String::new());
    while let Some(Frame { first, payload }) = raw.frame() {
        match first {
            CLOSE => return (texts, Some(u16::from_be_bytes([payload[0], payload[1]]))),
            0x01 | TEXT | BINARY | 0x00 | 0x80 => {
                part += &String::from_utf8(payload).expect("UTF-8");
                if first & 0x80 != 0 {
                    texts.push(std::mem::take(&mut part));
                }
            }
            other => panic!("a frame that nobody sent: {other:x}"),
        }
        if texts.last().is_some_and(|text| text == "z") {
            break;
        }
    }
    (texts, None)
}

fn is_one_left(hub: &Hub) -> bool {
    hub.connection_counts() == [1]
}

#[test]
fn mail_for_the_own_connection_takes_effect_before_the_next_call_of_its_handler() {
    within(LIMIT, || {
        let long = "l".repeat(100_000);
        let all = |mail: &'static [&'static str]| (mail, true, None);
        for (mail, (between, goes_on, code)) in [
            (Mail::Send, all(&["mail", "news"])),
            (Mail::LongSend, all(&["long", "news"])),
            (Mail::Publish, all(&["mail", "news"])),
            (Mail::Subscribe, all(&["news"])),
            (Mail::Unsubscribe, all(&[])),
            (Mail::Pieces, all(&["mail", "news"])),
            (Mail::Close, (&[][..], false, Some(4000))),
            (Mail::UnfinishedPieces, (&[][..], false, Some(1011))),
        ] {
            let server = serve(mail);
            let mut witness = Raw::upgraded(server.local_addr(), "/witness");
            assert_eq!(witness.text(), "hello");
            let mut raw = Raw::upgraded(server.local_addr(), "/");
            let run = ["a", "now", "b", "z"].map(|text| frame(TEXT, text.as_bytes()));
            raw.send(run.concat());
            let (texts, got_code) = got(&mut raw);
            let mut expected = vec!["a", "before"];
            expected.extend(between.iter().map(|&text| if text == "long" { &*long } else { text }));
            if mail != Mail::UnfinishedPieces {
                expected.push("now");
            }
            if goes_on {
                expected.extend(["b", "z"]);
            }
            assert_eq!(
                (texts, got_code),
                (expected.iter().map(|&t| t.to_owned()).collect(), code),
                "{mail:?}"
            );
            if mail == Mail::Publish {
                assert_eq!(witness.text(), "mail");
            }
            assert_eq!(witness.text(), "news", "{mail:?}");
            drop(raw);
            eventually(|| is_one_left(&server.hub()));
            let lost = if mail == Mail::UnfinishedPieces { 2..=4 } else { 0..=0 };
            assert!(lost.contains(&server.hub().dropped_count()), "{mail:?}");
        }
    });
}

#[test]
fn an_abort_of_the_own_connection_takes_effect_before_the_next_call_of_its_handler() {
    within(LIMIT, || {
        let server = serve(Mail::Abort);
        let mut witness = Raw::upgraded(server.local_addr(), "/witness");
        assert_eq!(witness.text(), "hello");
        let mut raw = Raw::upgraded(server.local_addr(), "/");
        let run = ["a", "now", "b", "z"].map(|text| frame(TEXT, text.as_bytes()));
        raw.send(run.concat());
        assert_eq!(witness.text(), "news");
        let (texts, code) = got(&mut raw);
        assert!(texts.iter().all(|text| text == "a" || text == "before"), "{texts:?}");
        assert_eq!(code, None);
        eventually(|| is_one_left(&server.hub()));
        std::thread::sleep(Duration::from_millis(20));
        assert!(is_one_left(&server.hub()));
    });
}
