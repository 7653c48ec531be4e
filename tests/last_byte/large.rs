//! Messages that are larger than an outbox, and news behind them.

use std::io::Read;
use std::thread;
use std::time::Duration;

use peregrine::{
    Callbacks, Endpoint, Limits, OverflowPolicy, Reply, RunningServer, SendError, ServerBuilder,
};

use crate::common::{eventually, start, within};
use crate::raw::{CLOSE, Raw, TEXT, close, frame};

const SNAPSHOT_BYTES: usize = 3_000_000;
const NEWS_COUNT: usize = 200;
const NEWS_BYTES: usize = 1000;

/// How the snapshot and the news are sent.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// The snapshot is the reply, the news come by the hub.
    Reply,
    /// All of it in one call of the handler.
    OneCall,
    /// All of it by the hub.
    Hub,
    Broadcast,
    /// The snapshot and the news wait behind a message in pieces.
    Held,
}

const WAYS: [Way; 5] = [Way::Reply, Way::OneCall, Way::Hub, Way::Broadcast, Way::Held];

fn news(number: usize) -> Vec<u8> {
    let mut news = vec![0; NEWS_BYTES];
    news[..8].copy_from_slice(&(number as u64).to_be_bytes());
    news
}

fn handler(way: Way) -> Callbacks<()> {
    Callbacks::new().on_connect(|ws| ws.id().to_string().into()).on_message(
        move |ws, _| match way {
            Way::Reply => vec![7; SNAPSHOT_BYTES].into(),
            Way::OneCall => {
                ws.send(vec![7; SNAPSHOT_BYTES]).expect("an empty outbox takes any message");
                for number in 0..NEWS_COUNT {
                    ws.send(news(number)).expect("the news fit behind the snapshot");
                }
                Reply::none()
            }
            Way::Held => {
                let mut stream = ws.stream::<str>().expect("no other");
                ws.send(vec![7; SNAPSHOT_BYTES]).expect("an empty outbox takes any message");
                for number in 0..NEWS_COUNT {
                    ws.send(news(number)).expect("the news fit behind the snapshot");
                }
                stream.write("piece").expect("room");
                stream.finish().expect("room");
                Reply::none()
            }
            Way::Hub | Way::Broadcast => "go".into(),
        },
    )
}

fn serve(way: Way, adjust: impl FnOnce(&mut Limits) + Send + 'static) -> RunningServer {
    let endpoint = Endpoint::new(handler(way)).adjust_limits(adjust);
    start(1, |builder: ServerBuilder| builder.websocket("/", endpoint))
}

/// Reads at full speed, or 1 MB/s, up to the last message.
fn read_all(client: &mut Raw, is_slow: bool) -> usize {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 100_000]);
    let mut pause_at = buffer.len();
    while !all.ends_with(b"the end") {
        match client.socket.read(&mut buffer) {
            Ok(count @ 1..) => all.extend_from_slice(&buffer[..count]),
            end => panic!("after {} bytes: {end:?}", all.len()),
        }
        if is_slow && all.len() >= pause_at {
            pause_at += buffer.len();
            thread::sleep(Duration::from_millis(100));
        }
    }
    all.len()
}

fn send_news(server: &RunningServer, way: Way, id: peregrine::ConnectionId) {
    let hub = server.hub();
    let send = |message: Vec<u8>| match way {
        Way::Broadcast => hub.broadcast("/", message),
        _ => hub.send_to(id, message),
    };
    if let Way::Hub | Way::Broadcast = way {
        send(vec![7; SNAPSHOT_BYTES]).expect("room in the mailbox");
    }
    if let Way::Hub | Way::Broadcast | Way::Reply = way {
        for number in 0..NEWS_COUNT {
            send(news(number)).expect("room in the mailbox");
        }
    }
    hub.send_to(id, "the end").expect("room in the mailbox");
}

#[test]
fn news_behind_a_snapshot_larger_than_the_outbox_close_nobody_who_reads() {
    within(Duration::from_secs(100), || {
        for way in WAYS {
            for is_slow in [false, true] {
                let server = serve(way, |_| {});
                let mut client = Raw::connect_narrow(server.local_addr());
                client.upgrade("/");
                let id = client.text().parse().expect("an id");
                client.send(frame(TEXT, b"go"));
                // What the kernel has of the answer shows that the handler has run.
                eventually(|| client.socket.peek(&mut [0]).is_ok_and(|count| count > 0));
                send_news(&server, way, id);
                let bytes = read_all(&mut client, is_slow);
                let context = format!("{way:?}, slow: {is_slow}");
                assert!(bytes > SNAPSHOT_BYTES + NEWS_COUNT * NEWS_BYTES, "{context}: {bytes}");
                assert_eq!(server.hub().dropped_count(), 0, "{context}");
            }
        }
    });
}

/// A client of which the snapshot waits in the outbox, and which does not read.
fn stalled(server: &RunningServer) -> (Raw, peregrine::ConnectionId) {
    let mut client = Raw::connect_narrow(server.local_addr());
    client.upgrade("/");
    let id = client.text().parse().expect("an id");
    client.send(frame(TEXT, b"go"));
    eventually(|| client.socket.peek(&mut [0]).is_ok_and(|count| count > 0));
    (client, id)
}

#[test]
fn a_client_that_does_not_read_holds_a_snapshot_and_the_limit_and_no_more() {
    within(Duration::from_secs(60), || {
        for overflow in [OverflowPolicy::DropNewest, OverflowPolicy::DropOldest] {
            let server = serve(Way::Reply, move |limits| limits.overflow = overflow);
            let hub = server.hub();
            let (mut client, id) = stalled(&server);
            // A second message of that size is one too many, however often it comes.
            for _ in 0..3 {
                let fate = hub.send_to_async(id, vec![7; SNAPSHOT_BYTES]).wait();
                assert_eq!(fate, Err(SendError::Overloaded), "{overflow:?}");
            }
            let refused_count = hub.dropped_count();
            // Of the news as many are kept as the limit allows.
            let (sent_count, kept_count) = (3000, (1 << 20) / (NEWS_BYTES + 4));
            for number in 0..sent_count {
                hub.send_to(id, news(number)).expect("room in the mailbox");
            }
            let dropped = || hub.dropped_count() - refused_count;
            eventually(|| dropped() >= (sent_count - kept_count - 50) as u64);
            hub.close(id).expect("it is there");
            let mut numbers = Vec::new();
            while let Some(message) = client.frame() {
                match message.first {
                    CLOSE => client.try_send(close(1000, b"")),
                    _ if message.payload.len() == NEWS_BYTES => numbers.push(message.payload),
                    _ => {}
                }
            }
            let context = format!("{overflow:?}: {}, {} dropped", numbers.len(), dropped());
            assert_eq!(numbers.len() as u64 + dropped(), sent_count as u64, "{context}");
            assert!(numbers.len() <= kept_count + 50, "{context}");
            let last = match overflow {
                OverflowPolicy::DropOldest => news(sent_count - 1),
                _ => news(numbers.len() - 1),
            };
            assert_eq!(numbers.last(), Some(&last), "{context}");
        }
    });
}

#[test]
fn a_client_that_does_not_read_is_closed_when_the_news_behind_a_snapshot_exceed_the_limit() {
    within(Duration::from_secs(60), || {
        let server = serve(Way::Reply, |limits| limits.close_timeout = Duration::from_millis(300));
        let hub = server.hub();
        let (client, id) = stalled(&server);
        for number in 0..900 {
            assert_eq!(hub.send_to(id, news(number)), Ok(()));
        }
        assert_eq!(hub.dropped_count(), 0, "the news have the whole limit for themselves");
        assert_eq!(hub.connection_counts(), [1]);
        for number in 0..300 {
            hub.send_to(id, news(number)).expect("room in the mailbox");
        }
        eventually(|| hub.connection_counts() == [0]);
        drop(client);
    });
}

/// What waits behind a snapshot is not dropped for a message that does not fit even then.
#[test]
fn a_second_snapshot_is_refused_and_costs_none_of_the_news_before_it() {
    within(Duration::from_secs(60), || {
        let server = serve(Way::Reply, |limits| limits.overflow = OverflowPolicy::DropOldest);
        let hub = server.hub();
        let (client, id) = stalled(&server);
        let news: Vec<_> = (0..50).map(|number| hub.send_to_async(id, news(number))).collect();
        let fate = hub.send_to_async(id, vec![7; SNAPSHOT_BYTES]).wait();
        assert_eq!(fate, Err(SendError::Overloaded));
        assert_eq!(hub.dropped_count(), 1);
        let reader = thread::spawn(move || read_to_close(client));
        hub.close(id).expect("it is there");
        for fate in news {
            assert_eq!(fate.wait(), Ok(()));
        }
        reader.join().expect("no panic");
    });
}

fn read_to_close(mut client: Raw) {
    while client.frame().is_some_and(|frame| frame.first != CLOSE) {}
    client.try_send(close(1000, b""));
}
