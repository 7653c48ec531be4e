//! Handlers that keep what they were given, for ever.

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peregrine::{Callbacks, ConnectionId, Delivery, Hub, Limits, MessageWriter, Reply, SendError};

use super::LIMIT;
use crate::common::{Client, PATIENCE, start, within};
use crate::raw::{Raw, TEXT, frame, timed, until};

#[derive(Default)]
struct Kept {
    hubs: Vec<(Hub, ConnectionId)>,
    deliveries: Vec<Delivery>,
    streams: Vec<MessageWriter<str>>,
}

/// Keeps every handle there is.
fn hoarder(kept: &Arc<Mutex<Kept>>) -> Callbacks<()> {
    let kept = Arc::clone(kept);
    Callbacks::new().on_message(move |ws, _| {
        let mut kept = kept.lock().expect("no panic inside");
        kept.hubs.push((ws.hub(), ws.id()));
        kept.deliveries.push(ws.send_to_async(ws.id(), "kept"));
        let mut stream = ws.stream::<str>().expect("the first");
        stream.write("begun").expect("room");
        kept.streams.push(stream);
        Reply::none()
    })
}

#[test]
fn handles_that_are_kept_outlive_connection_and_server_and_do_no_harm() {
    within(LIMIT, || {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let server = start(2, |app| app.websocket("/", hoarder(&kept)));
        let hub = server.hub();
        for _ in 0..20 {
            let mut raw = Raw::upgraded(server.local_addr(), "/");
            raw.send(frame(TEXT, b"keep"));
            assert_eq!(raw.text(), "kept");
        }
        until("all are gone", || hub.connection_counts() == [0, 0]);
        let mut open = Raw::upgraded(server.local_addr(), "/");
        open.send(frame(TEXT, b"keep"));
        assert_eq!(open.text(), "kept");
        {
            let mut kept = kept.lock().expect("no panic inside");
            for (hub, id) in &kept.hubs[..20] {
                assert_eq!(hub.send_to_async(*id, "x").wait(), Err(SendError::Gone));
            }
            for stream in &mut kept.streams[..20] {
                assert_eq!(stream.write("more"), Err(SendError::Gone));
            }
        }
        let (report, took) = timed(|| server.shutdown(Duration::from_millis(300)));
        assert_eq!(report.expect("no shard panicked").open_count, 1);
        assert!(took < PATIENCE);
        let Kept { hubs, deliveries, mut streams } =
            std::mem::take(&mut *kept.lock().expect("no panic inside"));
        for (hub, id) in hubs {
            assert_eq!(hub.send_to(id, "x"), Err(SendError::ShuttingDown));
            assert_eq!(hub.broadcast("/", "x"), Err(SendError::ShuttingDown));
        }
        for delivery in deliveries {
            assert_eq!(delivery.wait(), Ok(()));
        }
        for stream in &mut streams {
            assert!(stream.write("more").is_err());
        }
    });
}

#[test]
fn a_future_that_never_resolves_ends_with_its_connection() {
    struct Counted(Arc<()>);
    within(LIMIT, || {
        let living = Arc::new(());
        let counted = Arc::clone(&living);
        let never = move || {
            let held = Counted(Arc::clone(&counted));
            Reply::later(async move {
                pending::<()>().await;
                drop(held.0);
            })
        };
        let goodbye = never.clone();
        let handler =
            Callbacks::<()>::new().on_message(move |_, _| never()).on_close(move |_, _| goodbye());
        let mut limits = Limits::default();
        limits.close_timeout = Duration::from_millis(100);
        let server = start(1, |app| app.limits(limits).websocket("/", handler));
        let hub = server.hub();
        let before = Arc::strong_count(&living);
        for at in 0..50 {
            let mut raw = Raw::upgraded(server.local_addr(), "/");
            raw.send(frame(TEXT, b"wait"));
            match at % 3 {
                0 => drop(raw),
                1 => raw.reset(),
                _ => {
                    raw.send(crate::raw::close(1000, b""));
                    assert_eq!(raw.closed().0, 1000);
                }
            }
        }
        until("all are gone", || hub.connection_counts() == [0]);
        assert_eq!(Arc::strong_count(&living), before, "no future is kept");
        let mut open = Client::connect(server.local_addr(), "/");
        open.send("wait");
        let (report, took) = timed(|| server.shutdown(Duration::from_millis(300)));
        report.expect("no shard panicked");
        assert!(took < PATIENCE);
    });
}

/// Holds itself.
#[derive(Default)]
struct Knot(RefCell<Option<Rc<Self>>>);

#[test]
fn a_session_that_holds_itself_is_the_applications_own_loss() {
    within(LIMIT, || {
        let handler = Callbacks::<Rc<Knot>>::new().on_message(|ws, message| {
            let knot = Rc::clone(ws.session());
            *knot.0.borrow_mut() = Some(Rc::clone(&knot));
            message.into()
        });
        let server = start(1, |app| app.websocket("/", handler));
        let hub = server.hub();
        for _ in 0..20 {
            let mut client = Client::connect(server.local_addr(), "/");
            client.send("tie");
            assert_eq!(client.text(), "tie");
        }
        until("all are gone", || hub.connection_counts() == [0]);
        server.shutdown(LIMIT).expect("no shard panicked");
    });
}
