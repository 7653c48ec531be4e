//! One run: a server, its clients, and what they do, as the seed decides.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peregrine::testing::simulation::{Ending, Simulation};
use peregrine::{Hub, Limits, OverflowPolicy, Server, ServerBuilder};

use crate::actor::{Actor, TOPICS, World, live_count, lock};
use crate::dice::Dice;
use crate::ledger::{ClientIndex, Fate, Ledger, Reason, Sender, To};
use crate::peer::Peer;

const PATHS: [&str; 5] = ["/roomy", "/pieces", "/close", "/newest", "/oldest"];
const STEP_COUNT: usize = 400;
/// How many clients there are at most, at a time and in all.
const CLIENT_COUNTS: [usize; 2] = [6, 14];
/// How many rounds a server may take that has nothing left to do but what it has begun.
const ROUND_COUNT: usize = 3000;
const PLENTY: usize = 1 << 22;

pub type Trace = Arc<Mutex<Vec<String>>>;

pub struct Run {
    simulation: Simulation,
    shard_count: usize,
    hub: Hub,
    dice: Dice,
    world: Arc<Mutex<World>>,
    is_calm: Arc<AtomicBool>,
    peers: Vec<Peer>,
    elapsed: Duration,
    is_slow: bool,
    is_wild: bool,
    trace: Trace,
}

fn small(overflow: OverflowPolicy) -> impl FnOnce(&mut Limits) + Send + 'static {
    move |limits| {
        limits.outbox_low_water_bytes = 60;
        limits.outbox_high_water_bytes = 200;
        limits.max_outbox_bytes = 2000;
        limits.overflow = overflow;
    }
}

fn build(dice: &mut Dice, actor: &Actor, shard_count: usize) -> ServerBuilder {
    let mut limits = Limits::default();
    limits.max_mailbox_envelopes = dice.pick(&[1, 2, 4, 50]);
    limits.max_mailbox_bytes = dice.pick(&[1, 500, 1 << 16, 1 << 26]);
    limits.max_connections = Some(dice.pick(&[5, 1000]));
    limits.max_connections_per_ip = dice.pick(&[None, Some(4)]);
    limits.max_topics_per_connection = dice.pick(&[1, 2, 3]);
    let mut builder = Server::builder().shards(shard_count).limits(limits);
    for path in PATHS {
        let mut endpoint =
            Actor { path, receives_chunks: path == "/pieces", ..actor.clone() }.endpoint();
        endpoint = match path {
            "/close" => endpoint.adjust_limits(small(OverflowPolicy::Close)),
            "/newest" => endpoint.adjust_limits(small(OverflowPolicy::DropNewest)),
            "/oldest" => endpoint.adjust_limits(small(OverflowPolicy::DropOldest)),
            _ => endpoint,
        };
        builder = builder.websocket(path, endpoint);
    }
    builder
}

impl Run {
    pub fn new(seed: u64, shard_count: usize, trace: Trace) -> Self {
        let mut dice = Dice::new(seed);
        let world = World {
            dice: Dice::new(seed ^ 0xABCD),
            ledger: Ledger::default(),
            promises: Vec::new(),
            asked_count: 0,
            done_count: 0,
            streams: Vec::new(),
            tells_all: dice.is(2),
        };
        let world = Arc::new(Mutex::new(world));
        let is_calm = Arc::new(AtomicBool::new(false));
        let actor = Actor {
            world: Arc::clone(&world),
            is_calm: Arc::clone(&is_calm),
            path: "",
            receives_chunks: false,
        };
        let budgets = [[1, 64], [1, 1024], [1, 512], [1, 512]].map(|most| dice.pick(&most));
        let builder = build(&mut dice, &actor, shard_count);
        let simulation = Simulation::new(builder, budgets).expect("a right server");
        let hub = simulation.hub();
        let (is_slow, is_wild) = (dice.is(3), dice.is(2));
        Self {
            simulation,
            shard_count,
            hub,
            dice,
            world,
            is_calm,
            peers: Vec::new(),
            elapsed: Duration::ZERO,
            is_slow,
            is_wild,
            trace,
        }
    }

    fn note(&self, deed: impl Into<String>) {
        lock(&self.trace).push(deed.into());
    }

    pub fn run(mut self) {
        for _ in 0..STEP_COUNT {
            self.step();
        }
        if self.dice.is(4) {
            // In the middle of everything.
            self.shut_down(true);
            return;
        }
        self.come_to_rest();
        self.check_rest();
        self.probe();
        self.shut_down(false);
    }

    fn step(&mut self) {
        match self.dice.roll(100) {
            0..=3 => self.connect(),
            4..=8 => self.write(),
            9..=13 => self.read(),
            14..=21 => self.behave(),
            22..=24 => self.squeeze(),
            25..=35 => self.speak(),
            36 if self.is_wild => self.misbehave(),
            37..=45 => self.use_hub(),
            46..=48 => self.keep_promise(),
            49..=53 => self.go_on_streaming(),
            54..=56 => self.wait(),
            57 => {
                let shard = self.dice.roll(self.shard_count);
                self.note(format!("accepting fails on {shard}"));
                match self.dice.is(2) {
                    true => self.simulation.exhaust(shard),
                    false => self.simulation.abort_arrival(shard),
                }
            }
            _ => self.turn(),
        }
    }

    fn turn(&mut self) {
        let shard = self.dice.roll(self.shard_count);
        let sides = self.dice.pick(&[1, 2, 4]);
        self.note(format!("turn of {shard}"));
        self.simulation.turn(shard, || self.dice.is(sides));
        self.look();
    }

    fn look(&mut self) {
        let ledger = &mut lock(&self.world).ledger;
        for (peer, wire) in self.peers.iter_mut().zip(self.simulation.wires()) {
            peer.look(wire, ledger);
        }
        ledger.look();
    }

    fn connect(&mut self) {
        let here_count = self.peers.iter().filter(|peer| !peer.has_ended).count();
        if [here_count, self.peers.len()].iter().zip(CLIENT_COUNTS).any(|(&c, most)| c >= most) {
            return;
        }
        let (path, shard) = (self.dice.pick(&PATHS), self.dice.roll(self.shard_count));
        let room = self.dice.pick(&[0, 1, 50, 300, 5000, PLENTY, PLENTY]);
        let index = self.simulation.connect(shard, room);
        self.note(format!("{index} connects to {path} on {shard}, room {room}"));
        let mut peer = Peer::new(index, path);
        if self.dice.is(2) {
            peer.write(&mut self.simulation.wires()[index], PLENTY);
        }
        self.peers.push(peer);
        let ledger = &mut lock(&self.world).ledger;
        ledger.arrive(path);
        if !matches!(path, "/roomy" | "/pieces") {
            ledger.people[index].give_reason(Reason::Limits);
        }
    }

    fn any_peer(&mut self) -> Option<ClientIndex> {
        if self.peers.is_empty() { None } else { Some(self.dice.roll(self.peers.len())) }
    }

    fn write(&mut self) {
        let Some(index) = self.any_peer() else { return };
        let bytes = self.dice.pick(&[1, 2, 7, 100, PLENTY, PLENTY]);
        self.note(format!("{index} writes {bytes}"));
        self.peers[index].write(&mut self.simulation.wires()[index], bytes);
    }

    fn read(&mut self) {
        let Some(index) = self.any_peer() else { return };
        let bytes = self.dice.pick(&[1, 3, 100, 1 << 17, 1 << 17]);
        self.note(format!("{index} reads {bytes}"));
        self.peers[index].read(&mut self.simulation.wires()[index], bytes);
        self.peers[index].react();
    }

    /// Does what a client does all the time.
    fn behave(&mut self) {
        let Some(index) = self.any_peer() else { return };
        self.note(format!("{index} behaves"));
        let (peer, wire) = (&mut self.peers[index], &mut self.simulation.wires()[index]);
        while peer.read(wire, 1 << 17) {}
        peer.react();
        peer.write(wire, PLENTY);
    }

    fn squeeze(&mut self) {
        let Some(index) = self.any_peer() else { return };
        let room = self.dice.pick(&[0, 1, 2, 10, 130, 3000, PLENTY]);
        self.note(format!("{index} has room for {room}"));
        self.simulation.wires()[index].set_room(room);
    }

    fn speak(&mut self) {
        let Some(index) = self.any_peer() else { return };
        let peer = &mut self.peers[index];
        if peer.has_closed || !peer.is_open {
            return;
        }
        let bytes = self.dice.size();
        match self.dice.roll(8) {
            0 | 1 => peer.say_in_fragments(bytes, self.dice.roll(1 + bytes)),
            2 => peer.ping(),
            3 => (0..self.dice.roll(20)).for_each(|_| peer.say(1)),
            _ => peer.say(bytes),
        }
        lock(&self.trace).push(format!("{index} speaks, {bytes} bytes"));
    }

    fn give_reason(&self, index: ClientIndex, reason: Reason) {
        lock(&self.world).ledger.people[index].give_reason(reason);
    }

    fn misbehave(&mut self) {
        let Some(index) = self.any_peer() else { return };
        let deed = self.dice.roll(8);
        self.note(format!("{index} does {deed}"));
        let (peer, wire) = (&mut self.peers[index], &self.simulation.wires()[index]);
        let ending = match deed {
            0..=2 => {
                if peer.has_closed || !peer.is_open {
                    return;
                }
                if deed == 2 {
                    let garbage: [&[u8]; 4] =
                        [&[0xFF; 9], &[0x81, 0x01, b'a'], &[0x80, 0x80, 0, 0, 0, 0], &[0x89, 0xFE]];
                    peer.unsent.extend(self.dice.pick(&garbage));
                    (peer.is_spoilt, peer.has_closed) = (true, true);
                    return self.give_reason(index, Reason::Misbehaved);
                }
                peer.close();
                return self.give_reason(index, Reason::ClosedByClient);
            }
            3 | 4 => Ending::Half,
            5 => Ending::Whole,
            6 => Ending::Reset,
            _ => Ending::ResetAtOnce,
        };
        wire.end(ending);
        peer.unsent.clear();
        (peer.is_spoilt, peer.has_closed) = (true, true);
        self.give_reason(index, Reason::Misbehaved);
    }

    fn use_hub(&mut self) {
        let Some(index) = self.any_peer() else { return };
        let (topic, path) = (self.dice.pick(&TOPICS), self.dice.pick(&PATHS));
        let deed = self.dice.roll(if self.is_wild { 12 } else { 11 });
        self.note(format!("the hub does {deed} to {index}"));
        let mut world = lock(&self.world);
        let World { ledger, tells_all, .. } = &mut *world;
        let to = match deed {
            0 | 1 => To::Everyone { path, except: None },
            2 | 3 => To::Topic { topic, except: None },
            _ => To::One(index),
        };
        let id = ledger.people[index].id;
        if deed <= 3 || (deed <= 7 && id.is_some()) {
            let name = ledger.compose(Sender::Hub, to, self.dice.size());
            let message = ledger.get(name).message();
            let is_told = *tells_all || self.dice.is(2);
            match (deed, id) {
                (0 | 1, _) if is_told => {
                    let told = self.hub.broadcast_async(path, message);
                    ledger.settle_told_many(name, told);
                }
                (2 | 3, _) if is_told => {
                    let told = self.hub.publish_async(topic, message);
                    ledger.settle_told_many(name, told);
                }
                (0 | 1, _) => ledger.settle_sync(name, self.hub.broadcast(path, message)),
                (2 | 3, _) => ledger.settle_sync(name, self.hub.publish(topic, message)),
                (4 | 5, Some(id)) => {
                    ledger.settle_told(name, self.hub.send_to_async(id, message));
                }
                (_, Some(id)) => ledger.settle_sync(name, self.hub.send_to(id, message)),
                (_, None) => {}
            }
            return;
        }
        let Some(id) = id else { return };
        let person = &mut ledger.people[index];
        match deed {
            8 | 9 => {
                person.topics.insert(topic);
                person.loose_topics.insert(topic);
                // Whether it works shows in whom the next publication reaches.
                let _ = self.hub.subscribe(id, topic);
            }
            10 => {
                if self.hub.unsubscribe(id, topic).is_ok() {
                    person.loose_topics.insert(topic);
                    person.firm_topics.remove(topic);
                }
            }
            _ => {
                let is_closing = self.dice.is(2);
                let accepted = match is_closing {
                    true => self.hub.close_with(id, 4001, "enough"),
                    false => self.hub.abort(id),
                };
                if accepted.is_ok() {
                    person.give_reason(Reason::ClosedByApplication);
                }
            }
        }
    }

    fn keep_promise(&mut self) {
        let mut world = lock(&self.world);
        if !world.promises.is_empty() {
            let at = self.dice.roll(world.promises.len());
            let promise = world.promises.swap_remove(at);
            drop(world);
            self.note("a promise is kept");
            let _ = promise.send(());
        }
    }

    fn go_on_streaming(&mut self) {
        let mut world = lock(&self.world);
        if world.streams.is_empty() {
            return;
        }
        let at = self.dice.roll(world.streams.len());
        let (name, client, mut stream) = world.streams.swap_remove(at);
        let ledger = &mut world.ledger;
        let piece = vec![b'p'; self.dice.size()];
        // So that it is known by its bytes.
        let piece =
            if ledger.get(name).body.is_empty() { format!("s{name}:").into() } else { piece };
        let deed = self.dice.roll(8);
        lock(&self.trace).push(format!("stream {name} of {client} does {deed}"));
        match deed {
            0 => {
                ledger.people[client].give_reason(Reason::Abandoned);
                return drop(stream);
            }
            1 if !ledger.get(name).body.is_empty() => {
                if stream.finish().is_ok() {
                    return ledger.settle(name, Fate::Accepted);
                }
            }
            2 if !ledger.get(name).body.is_empty() => {
                let delivery = stream.finish_async();
                ledger.settle_told(name, delivery);
                let is_refused = matches!(ledger.get(name).fate, Fate::Refused(_));
                if !is_refused {
                    return;
                }
                ledger.settle(name, Fate::Unfinished);
            }
            _ => {
                if stream.write(&piece).is_ok() {
                    ledger.append(name, &piece);
                }
            }
        }
        world.streams.push((name, client, stream));
    }

    fn wait(&mut self) {
        let most = if self.is_slow { 40_000 } else { 100 };
        let time = Duration::from_millis(self.dice.roll(most) as u64);
        self.advance(time);
    }

    fn advance(&mut self, time: Duration) {
        self.note(format!("{time:?} pass"));
        self.elapsed += time;
        self.simulation.advance(time);
        if self.elapsed > Duration::from_secs(4) {
            let people = &mut lock(&self.world).ledger.people;
            people.iter_mut().for_each(|person| person.give_reason(Reason::Time));
        }
    }
}

mod ending;
