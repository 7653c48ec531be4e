//! A goodbye that comes later, however the connection ends and whatever the peer still says.

use std::sync::{Mutex, mpsc};

use futures_channel::oneshot;
use peregrine::{Callbacks, Reply};

use super::each;
use crate::common::{Client, start};
use crate::raw::{BINARY, FIN, PING, PONG, Raw, TEXT, close, frame};

/// How an endpoint takes its messages.
#[derive(Clone, Copy, Debug)]
enum Receipt {
    Whole,
    Pieces,
}

type Goodbyes = mpsc::Receiver<oneshot::Sender<String>>;

/// Tells its clients their ids, and says goodbye when the test says so.
fn leaving_slowly(receipt: Receipt) -> (Callbacks<()>, Goodbyes) {
    let (sender, goodbyes) = mpsc::channel();
    let sender = Mutex::new(sender);
    let handler = Callbacks::new().on_connect(|ws| ws.id().to_string().into()).on_close(
        move |_ws, _close| {
            let (promise, goodbye) = oneshot::channel::<String>();
            sender.lock().expect("a lock").send(promise).expect("the test listens");
            Reply::later(async { goodbye.await.ok() })
        },
    );
    let handler = match receipt {
        Receipt::Whole => handler,
        Receipt::Pieces => handler.on_chunk(|_ws, _fragment| Reply::none()),
    };
    (handler, goodbyes)
}

/// Who ends a connection.
#[derive(Clone, Copy, Debug)]
enum By {
    Peer,
    Server,
}

/// One end: what the peer says before it, who ends it, what the peer says while the goodbye is
/// awaited, and the code of the server's Close frame.
type End = (Vec<u8>, By, Vec<Vec<u8>>, u16);

fn ends() -> Vec<End> {
    let whole = frame(BINARY, &[7; 1000]);
    let (half, rest) = whole.split_at(500);
    let (half, rest) = (half.to_vec(), rest.to_vec());
    let ping = frame(PING, b"");
    let broken = || frame(TEXT | 0x40, b"");
    let begun = frame(TEXT & !FIN, b"begun");
    vec![
        (close(1000, b""), By::Peer, vec![], 1000),
        (close(3000, b""), By::Peer, vec![ping.clone(), half.clone(), whole.clone()], 3000),
        ([begun.clone(), close(1000, b"")].concat(), By::Peer, vec![ping.clone()], 1000),
        (broken(), By::Peer, vec![ping.clone(), whole.clone(), close(1000, b"")], 1002),
        ([begun.clone(), broken()].concat(), By::Peer, vec![ping.clone(), rest.clone()], 1002),
        (half.clone(), By::Server, vec![rest.clone(), ping.clone(), whole.clone()], 1000),
        (half, By::Server, vec![rest[..9].to_vec(), rest[9..].to_vec(), broken()], 1000),
        (whole[..3].to_vec(), By::Server, vec![whole[3..5].to_vec(), whole[5..].to_vec()], 1000),
        (begun, By::Server, vec![ping, frame(FIN, b"ended"), close(1000, b"")], 1000),
    ]
}

#[test]
fn a_goodbye_may_come_later_however_the_connection_ends_and_whatever_the_peer_still_says() {
    each(|shard_count| {
        for receipt in [Receipt::Whole, Receipt::Pieces] {
            let (handler, goodbyes) = leaving_slowly(receipt);
            let echo = Callbacks::<()>::new().on_message(|_ws, message| message.into());
            let server = start(shard_count, |builder| {
                builder.websocket("/", handler).websocket("/echo", echo)
            });
            let mut others: Vec<_> = (0..2 * shard_count + 1)
                .map(|_| Client::connect(server.local_addr(), "/echo"))
                .collect();
            for (number, (before, by, meanwhile, code)) in ends().into_iter().enumerate() {
                let context = format!("{receipt:?}, end {number}");
                let mut peer = Raw::upgraded(server.local_addr(), "/");
                let id = peer.text().parse().expect("an id");
                // The pong tells that all of it was read.
                peer.send([frame(PING, b""), before].concat());
                assert_eq!(peer.frame().expect("a pong").first, PONG, "{context}");
                if let By::Server = by {
                    server.hub().close(id).expect("it is open");
                }
                let promise = goodbyes.recv().expect("on_close is called");
                for bytes in meanwhile {
                    peer.try_send(bytes);
                    // Whoever speaks after it is served: so it was read, and harmed nobody.
                    for other in &mut others {
                        other.send("still here");
                        assert_eq!(other.text(), "still here", "{context}");
                    }
                }
                if let By::Server = by {
                    peer.try_send(close(1000, b""));
                }
                promise.send("Goodbye".to_owned()).expect("the server waits");
                let frames = peer.frames();
                let said: Vec<_> = frames.iter().filter(|frame| frame.first != PONG).collect();
                let [goodbye, last] = said[..] else { panic!("{context}: {frames:?}") };
                assert_eq!(goodbye.payload, b"Goodbye", "{context}");
                assert_eq!(last.close().0, code, "{context}");
            }
        }
    });
}
