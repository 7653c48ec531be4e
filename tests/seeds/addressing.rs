//! S5 ids, S6 `send_to`, S8 broadcast.

use std::collections::HashSet;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use peregrine::{
    ConnectionId, Handler, Limits, Message, OverflowPolicy, Reply, SendError, WebSocket,
};

use super::common::{Client, PATIENCE, start};
use super::{enough_for, eventually, id_of, on_every_shard_count};

/// Tells each client its id; sends what it is asked to: `"ID TEXT"` to one, `"all TEXT"` to all.
struct Post;

impl Handler for Post {
    type Session = ();

    fn on_connect(&self, ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        ws.id().to_string().into()
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        let Some((to, text)) = message.as_text().and_then(|text| text.split_once(' ')) else {
            return ws.id().to_string().into();
        };
        let sent = match to {
            "all" => ws.broadcast(text),
            "me" => ws.send_to(ws.id(), text),
            id => ws.send_to(id.parse().expect("an id"), text),
        };
        match sent {
            Ok(()) => Reply::none(),
            Err(error) => format!("{error:?}").into(),
        }
    }
}

fn meet(shards: usize, count: usize) -> (peregrine::RunningServer, Vec<Client>, Vec<ConnectionId>) {
    let running = start(shards, |app| app.websocket("/web_socket", Post));
    let mut clients: Vec<_> =
        (0..count).map(|_| Client::connect(running.local_addr(), "/web_socket")).collect();
    let ids = clients.iter_mut().map(id_of).collect();
    (running, clients, ids)
}

#[test]
fn s5_ids_are_unique_among_all_connections_that_ever_were() {
    on_every_shard_count(|shards| {
        let (running, mut clients, ids) = meet(shards, 100);
        let mut seen: HashSet<ConnectionId> = ids.iter().copied().collect();
        // Every slot gets new tenants, several times.
        for round in 0..400 {
            let at = round % clients.len();
            clients[at] = Client::connect(running.local_addr(), "/web_socket");
            assert!(seen.insert(id_of(&mut clients[at])), "an id was given twice");
        }
        assert_eq!(seen.len(), 500);
    });
}

#[test]
fn s5_an_id_stays_the_same_for_the_life_of_its_connection() {
    on_every_shard_count(|shards| {
        let (_running, mut clients, ids) = meet(shards, enough_for(shards));
        for _ in 0..3 {
            for (client, id) in clients.iter_mut().zip(&ids) {
                client.send("who-am-i");
                assert_eq!(id_of(client), *id);
            }
        }
    });
}

#[test]
fn s5_an_id_prints_as_a_uuid_of_version_8_and_parses_back() {
    on_every_shard_count(|shards| {
        let (_running, _clients, ids) = meet(shards, enough_for(shards));
        let shards_seen: HashSet<usize> = ids.iter().map(ConnectionId::shard).collect();
        assert_eq!(shards_seen, (0..shards).collect());
        for id in ids {
            let text = id.to_string();
            let groups: Vec<usize> = text.split('-').map(str::len).collect();
            assert_eq!(groups, [8, 4, 4, 4, 12]);
            assert!(text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f' | '-')), "{text}");
            assert_eq!(text.as_bytes()[14], b'8', "the version (RFC 9562 section 5.8)");
            assert!(b"89ab".contains(&text.as_bytes()[19]), "the variant (section 4.1)");
            assert_eq!(text.parse(), Ok(id));
            assert_eq!(text.to_uppercase().parse(), Ok(id));
            assert_eq!(format!("{:032x}", id.as_u128()), text.replace('-', ""));
        }
    });
}

#[test]
fn s5_an_id_is_an_address_from_any_thread() {
    on_every_shard_count(|shards| {
        let (running, mut clients, ids) = meet(shards, enough_for(shards));
        thread::scope(|scope| {
            for (sender, text) in ["a", "b", "c", "d"].into_iter().enumerate() {
                let (hub, ids) = (running.hub(), &ids);
                scope.spawn(move || {
                    for (at, id) in ids.iter().enumerate() {
                        // From text, as it would come out of a database.
                        let id: ConnectionId = id.to_string().parse().expect("an id");
                        hub.send_to(id, format!("{text} {sender} to {at}")).expect("room");
                    }
                });
            }
        });
        for (at, client) in clients.iter_mut().enumerate() {
            let mut texts: Vec<_> = (0..4).map(|_| client.text()).collect();
            texts.sort_unstable();
            let expected = ["a 0", "b 1", "c 2", "d 3"].map(|from| format!("{from} to {at}"));
            assert_eq!(texts, expected);
        }
    });
}

#[test]
fn s5_a_stale_id_tells_gone_and_never_reaches_the_slots_next_tenant() {
    on_every_shard_count(|shards| {
        let (running, mut clients, ids) = meet(shards, enough_for(shards));
        let hub = running.hub();
        let mut stale = Vec::new();
        for round in 0..20 {
            // All but the last leave; their slots are free before the next tenants come.
            for client in clients.drain(..clients.len() - 1) {
                drop(client);
            }
            eventually(|| hub.connection_counts().iter().sum::<usize>() == 1);
            stale.extend(if round == 0 { ids[..ids.len() - 1].to_vec() } else { Vec::new() });
            let mut tenants: Vec<_> = (1..enough_for(shards))
                .map(|_| Client::connect(running.local_addr(), "/web_socket"))
                .collect();
            let tenant_ids: Vec<_> = tenants.iter_mut().map(id_of).collect();
            let last = clients.len() - 1;
            for id in &stale {
                assert!(!tenant_ids.contains(id));
                let before = hub.dropped_count();
                match hub.send_to(*id, "for the dead") {
                    Ok(()) => eventually(|| hub.dropped_count() == before + 1),
                    Err(error) => assert_eq!(error, SendError::Gone),
                }
                hub.close(*id).expect("room");
                hub.abort(*id).expect("room");
                let before = hub.dropped_count();
                clients[last].send(format!("{id} for the dead"));
                clients[last].send("all fence");
                match &*clients[last].text() {
                    "Gone" => assert_eq!(clients[last].text(), "fence"),
                    // Its shard is another one: it is told by the counter.
                    "fence" => eventually(|| hub.dropped_count() == before + 1),
                    other => panic!("{other:?}"),
                }
                for tenant in &mut tenants {
                    assert_eq!(tenant.text(), "fence", "nothing for the dead, and still open");
                }
            }
            stale.extend(tenant_ids);
            stale = stale.split_off(stale.len().saturating_sub(2 * enough_for(shards)));
            tenants.append(&mut clients);
            clients = tenants;
        }
    });
}

#[test]
fn s5_a_stale_id_of_the_senders_own_shard_is_an_error() {
    on_every_shard_count(|shards| {
        let (running, mut clients, ids) = meet(shards, 2 * enough_for(shards));
        let here = ids[0].shard();
        let neighbour = (1..ids.len()).find(|&at| ids[at].shard() == here).expect("one");
        let stale = ids[neighbour];
        drop(clients.remove(neighbour));
        eventually(|| running.hub().connection_counts().iter().sum::<usize>() == ids.len() - 1);
        clients[0].send(format!("{stale} are you there?"));
        assert_eq!(clients[0].text(), "Gone");
        let stranger: ConnectionId = "00000000-0000-8000-8000-000000000000".parse().expect("one");
        clients[0].send(format!("{stranger} are you there?"));
        assert_eq!(clients[0].text(), "Gone", "an id that this server never gave");
        assert_eq!(running.hub().send_to(stranger, "x"), Err(SendError::Gone));
    });
}

#[test]
fn s6_anybody_sends_to_anybody_by_id_and_to_oneself() {
    on_every_shard_count(|shards| {
        let (_running, mut clients, ids) = meet(shards, enough_for(shards));
        for from in 0..clients.len() {
            for (to, id) in ids.iter().enumerate() {
                clients[from].send(format!("{id} from {from} to {to}"));
                assert_eq!(clients[to].text(), format!("from {from} to {to}"));
            }
            clients[from].send("me a message to self");
            assert_eq!(clients[from].text(), "a message to self");
        }
        for client in &mut clients {
            client.send("all fence");
        }
        for client in &mut clients {
            let fences = ids.iter().map(|_| client.text()).filter(|text| text == "fence");
            assert_eq!(fences.count(), ids.len(), "nothing came twice or to a third");
        }
    });
}

/// How many messages one call of `Flood` sends at most, and how long they are.
const FLOOD_COUNT: usize = 400;
static LOAD: [u8; 64 << 10] = [7; 64 << 10];

/// Sends far more to the id that it is given than an outbox holds, and tells what came of it.
struct Flood {
    told: Sender<Vec<Result<(), SendError>>>,
}

impl Handler for Flood {
    type Session = ();

    fn on_connect(&self, ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        ws.id().to_string().into()
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        let to = message.as_text().unwrap_or_default().parse().expect("an id");
        let results = (0..FLOOD_COUNT).map(|_| ws.send_to(to, LOAD)).collect();
        self.told.send(results).expect("the test listens");
        Reply::none()
    }
}

#[test]
fn s6_send_to_never_blocks_and_what_was_accepted_arrives_or_is_counted() {
    on_every_shard_count(|shards| {
        let mut limits = Limits::default();
        limits.overflow = OverflowPolicy::DropNewest;
        let (told, results) = channel();
        let running =
            start(shards, |app| app.limits(limits).websocket("/web_socket", Flood { told }));
        let connect = || Client::connect(running.local_addr(), "/web_socket");
        let mut clients: Vec<_> = (0..enough_for(shards)).map(|_| connect()).collect();
        let ids: Vec<_> = clients.iter_mut().map(id_of).collect();
        let flood = |from: &mut Client, to: ConnectionId| {
            from.send(to.to_string());
            // The target does not read: the calls come back all the same.
            let results = results.recv_timeout(PATIENCE).expect("the handler returned");
            let refused = results.iter().filter_map(|result| result.err());
            assert!(refused.clone().all(|error| error == SendError::Overloaded));
            results.len() - refused.count()
        };
        let hub = running.hub();
        for at in 1..clients.len() {
            let own_count = flood(&mut clients[at], ids[at]);
            assert!(own_count < FLOOD_COUNT, "an outbox is bounded");
            for _ in 0..own_count {
                assert_eq!(clients[at].bytes(), LOAD);
            }
            let before = hub.dropped_count();
            let accepted_count = flood(&mut clients[at], ids[0]);
            if ids[at].shard() == ids[0].shard() {
                assert!(accepted_count < FLOOD_COUNT, "so is another's on the same shard");
                assert_eq!(hub.dropped_count(), before, "and there Ok is the whole truth");
            }
            let mut arrived_count = 0;
            loop {
                // What another shard could not keep is counted there; all else is delivered.
                let dropped_count = usize::try_from(hub.dropped_count() - before).expect("few");
                if arrived_count + dropped_count == accepted_count {
                    break;
                }
                assert_eq!(clients[0].bytes(), LOAD);
                arrived_count += 1;
            }
            hub.send_to(ids[0], "fence").expect("room");
            assert_eq!(clients[0].text(), "fence", "and nothing else");
        }
    });
}

#[test]
fn s8_a_broadcast_reaches_everyone_on_every_shard_once_the_sender_included() {
    on_every_shard_count(|shards| {
        let (running, mut clients, ids) = meet(shards, 5 * shards);
        assert!(running.hub().connection_counts().iter().all(|&count| count > 0));
        for from in 0..clients.len() {
            clients[from].send(format!("all from {from}"));
            for client in &mut clients {
                assert_eq!(client.text(), format!("from {from}"));
            }
        }
        running.hub().broadcast("/web_socket", "from outside").expect("room");
        for (client, id) in clients.iter_mut().zip(&ids) {
            assert_eq!(client.text(), "from outside");
            running.hub().send_to(*id, "fence").expect("room");
            assert_eq!(client.text(), "fence", "nothing came twice");
        }
        assert_eq!(running.hub().broadcast("/nowhere", "x"), Err(SendError::NoEndpoint));
    });
}

#[test]
fn s8_the_earliest_clients_miss_nothing() {
    on_every_shard_count(|shards| {
        let (running, mut clients, _) = meet(shards, 1);
        for round in 0..6 * shards {
            let mut newcomer = Client::connect(running.local_addr(), "/web_socket");
            id_of(&mut newcomer);
            newcomer.send(format!("all round {round}"));
            clients.push(newcomer);
            for client in &mut clients {
                assert_eq!(client.text(), format!("round {round}"));
            }
        }
    });
}

#[test]
fn s8_a_client_that_does_not_read_holds_up_nobody() {
    on_every_shard_count(|shards| {
        let (running, mut clients, ids) = meet(shards, 2 * enough_for(shards));
        let load = "x".repeat(32 << 10);
        let mut slow = clients.remove(0);
        // 48 MiB are more than the kernel buffers for it and more than its outbox holds.
        for round in 0..1536 {
            running.hub().broadcast("/web_socket", format!("{round} {load}")).expect("room");
            for client in &mut clients {
                let text = client.text();
                assert_eq!(text.split_once(' '), Some((&*round.to_string(), &*load)));
            }
        }
        eventually(|| running.hub().connection_counts().iter().sum::<usize>() < ids.len());
        let mut rounds = 0;
        let ended = loop {
            match slow.0.read() {
                Ok(tungstenite::Message::Text(text)) => {
                    assert!(text.starts_with(&format!("{rounds} ")), "in order, without a gap");
                    rounds += 1;
                }
                ended => break ended,
            }
        };
        assert!(rounds > 0 && rounds < 1536, "it was bounded: {rounds} rounds, then {ended:?}");
    });
}
