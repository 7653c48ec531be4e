//! Every future is told when the server stops.

use std::time::Duration;

use peregrine::{Callbacks, Limits, SendError, Server};
use pollster::block_on;

use super::common::{SHARD_COUNTS, within};
use super::courier::{BIG, Office};
use super::{LIMIT, is_pending};

/// How a server stops.
#[derive(Clone, Copy, Debug)]
enum Stop {
    ShutdownPlan(Duration),
    Drop,
}

const STOPS: [Stop; 3] = [
    Stop::ShutdownPlan(Duration::from_millis(200)),
    Stop::ShutdownPlan(Duration::ZERO),
    Stop::Drop,
];

impl Stop {
    fn stop(self, running: peregrine::RunningServer) {
        match self {
            Self::ShutdownPlan(grace) => drop(running.shutdown(grace).expect("the threads end")),
            Self::Drop => drop(running),
        }
    }
}

#[test]
fn shutting_down_is_told_of_what_a_slow_client_has_not_taken() {
    within(LIMIT, || {
        for (shards, stop) in SHARD_COUNTS.into_iter().flat_map(|n| STOPS.map(|stop| (n, stop))) {
            let office = Office::open(shards, Limits::default());
            let hub = office.running.hub();
            let (mut sender, _) = office.client();
            let (slow, id) = office.slow();
            let mut by_hub = hub.send_to_async(id, vec![0; BIG]);
            let (another, other_id) = office.slow();
            sender.send(format!("to {other_id} {BIG};say on_its_way"));
            let mut by_handler = office.delivery();
            assert_eq!(sender.text(), "on_its_way");
            let mut to_all = hub.publish_async("everybody", vec![0; BIG]);
            assert!(is_pending(&mut by_hub) && is_pending(&mut by_handler));
            assert!(is_pending(&mut to_all));
            let Office { running, .. } = office;
            stop.stop(running);
            assert_eq!(block_on(by_hub), Err(SendError::ShuttingDown), "{stop:?}");
            assert_eq!(block_on(by_handler), Err(SendError::ShuttingDown), "{stop:?}");
            let report = block_on(to_all).expect("it was accepted");
            let total = report.reached_count + report.gone_count + report.overloaded_count;
            assert!(total <= 3, "{report:?}");
            assert_eq!(block_on(hub.send_to_async(id, "?")), Err(SendError::ShuttingDown));
            let after = block_on(hub.broadcast_async("/", "?"));
            assert_eq!(after, Err(SendError::ShuttingDown));
            let after = block_on(hub.publish_async("everybody", "?"));
            assert_eq!(after, Err(SendError::ShuttingDown));
            assert_eq!(hub.subscriber_count("everybody"), 0);
            drop((slow, another));
        }
    });
}

#[test]
fn every_future_is_told_when_the_server_stops_amid_traffic() {
    within(LIMIT, || {
        for (shards, stop) in SHARD_COUNTS.into_iter().flat_map(|n| STOPS.map(|stop| (n, stop))) {
            let mut limits = Limits::default();
            limits.max_mailbox_envelopes = 64;
            let office = Office::open(shards, limits);
            let hub = office.running.hub();
            let mut clients = office.clients(shards);
            let ids: Vec<_> = clients.iter().map(|(_, id)| *id).collect();
            let (_slow, slow_id) = office.slow();
            // Through mailboxes that are too small, so that some of it waits with its sender.
            for (client, _) in &mut clients {
                let orders = ids.iter().map(|id| format!("to {id} 9;all 8;pub everybody 7;"));
                let orders: String = orders.collect::<String>().repeat(30);
                client.send(format!("{orders}to {slow_id} 9"));
            }
            let mut deliveries = Vec::new();
            let mut broadcasts = Vec::new();
            for at in 0..500 {
                deliveries.push(hub.send_to_async(ids[at % ids.len()], "from outside"));
                broadcasts.push(hub.broadcast_async("/", "to all"));
                if at == 250 {
                    deliveries.push(office.delivery());
                }
            }
            let Office { running, deliveries: more, broadcasts: more_broadcasts } = office;
            stop.stop(running);
            deliveries.extend(more.try_iter());
            broadcasts.extend(more_broadcasts.try_iter());
            for mut delivery in deliveries {
                assert!(!is_pending(&mut delivery), "told before the server's end, {stop:?}");
            }
            for mut broadcast in broadcasts {
                assert!(!is_pending(&mut broadcast), "told before the server's end, {stop:?}");
            }
        }
    });
}

#[test]
fn who_leaves_during_the_grace_is_gone() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let office = Office::open(shards, Limits::default());
            let hub = office.running.hub();
            let (mut slow, id) = office.slow();
            let mut queued = hub.send_to_async(id, vec![0; BIG]);
            slow.take(1 << 20).expect("the first part");
            assert!(is_pending(&mut queued));
            let Office { running, .. } = office;
            let stopping = std::thread::spawn(move || running.shutdown(LIMIT));
            // The shutdown has begun when nothing is accepted any more.
            while hub.broadcast("/", "?").is_ok() {}
            slow.reset();
            assert_eq!(block_on(queued), Err(SendError::Gone));
            stopping.join().expect("no panic").expect("the threads end");
        }
    });
}

#[test]
fn a_server_that_never_starts_tells_so_when_it_goes() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let server = Server::builder().shards(shards).websocket("/", Callbacks::<()>::new());
            let server = server.bind("127.0.0.1:0").expect("a free port");
            let hub = server.hub();
            let mut waiting = hub.broadcast_async("/", "is anybody there?");
            assert!(is_pending(&mut waiting));
            drop(server);
            assert_eq!(block_on(waiting), Ok(peregrine::BroadcastReport::default()));
            let after = block_on(hub.broadcast_async("/", "?"));
            assert_eq!(after, Err(SendError::ShuttingDown));
        }
    });
}
