//! How a run ends: nothing is lost, nothing is left over, nothing goes on for ever.

use peregrine::ShutdownPlan;

use super::*;

impl Run {
    /// Handlers and clients do nothing new, and everybody reads and writes: goes on until nothing
    /// moves any more.
    pub(super) fn come_to_rest(&mut self) {
        self.note("calm");
        self.is_calm.store(true, Ordering::Relaxed);
        let (promises, streams) = {
            let World { promises, streams, ledger, .. } = &mut *lock(&self.world);
            for (_, client, _) in streams.iter() {
                ledger.people[*client].give_reason(Reason::Abandoned);
            }
            (std::mem::take(promises), std::mem::take(streams))
        };
        drop((promises, streams));
        for wire in self.simulation.wires() {
            wire.set_room(PLENTY);
        }
        self.settle();
        // Listeners may rest, and those who have been told everything may linger.
        for _ in 0..15 {
            self.advance(Duration::from_millis(100));
            self.settle();
        }
    }

    /// Lets everybody do what they want to, until nobody does.
    fn settle(&mut self) {
        for _ in 0..ROUND_COUNT {
            let mut has_moved = false;
            for peer in &mut self.peers {
                let wire = &mut self.simulation.wires()[peer.index];
                while peer.read(wire, 1 << 17) {
                    has_moved = true;
                }
                peer.react();
                has_moved |= peer.write(wire, PLENTY);
                if peer.has_ended {
                    // A process that has heard the end closes its socket.
                    wire.end(Ending::Whole);
                }
            }
            for shard in 0..self.shard_count {
                has_moved |= self.simulation.turn(shard, || true);
            }
            self.look();
            if !has_moved {
                return;
            }
        }
        panic!("the server does not come to rest");
    }

    pub(super) fn check_rest(&mut self) {
        self.note("rest");
        let world = &mut *lock(&self.world);
        let wires = self.simulation.wires();
        for (peer, person) in self.peers.iter().zip(&world.ledger.people) {
            peer.check_quiet(&wires[peer.index], person);
            assert!(
                person.connect_count == 0 || person.is_open() || !person.reasons.is_empty(),
                "{} was closed for no reason",
                peer.index
            );
            if person.is_open() {
                assert!(!wires[peer.index].is_closed(), "{} is open", peer.index);
            }
        }
        world.ledger.check_arrivals();
        let open_count = world.ledger.people.iter().filter(|person| person.is_open()).count();
        let served_count: usize = self.hub.connection_counts().iter().sum();
        assert!(open_count <= served_count, "{open_count} open, {served_count} there");
        world.ledger.close_account(self.hub.dropped_count(), true);
    }

    /// Whoever is there is answered, and topics and endpoints reach their members.
    pub(super) fn probe(&mut self) {
        self.note("probe");
        for peer in &mut self.peers {
            if peer.is_open && !peer.has_closed {
                peer.say(3);
            }
        }
        let mut names = Vec::new();
        for to in PATHS
            .map(|path| To::Everyone { path, except: None })
            .into_iter()
            .chain(TOPICS.map(|topic| To::Topic { topic, except: None }))
        {
            self.settle();
            let ledger = &mut lock(&self.world).ledger;
            let name = ledger.compose(Sender::Hub, to.clone(), 3);
            let message = ledger.get(name).message();
            let told = match to {
                To::Everyone { path, .. } => self.hub.broadcast_async(path, message),
                To::Topic { topic, .. } => self.hub.publish_async(topic, message),
                To::One(_) => continue,
            };
            let expected = match to {
                To::Topic { topic, .. } => self.hub.subscriber_count(topic),
                To::Everyone { path, .. } => {
                    let people = ledger.people.iter();
                    people.filter(|person| person.is_open() && person.path == path).count()
                }
                To::One(_) => continue,
            };
            ledger.settle_told_many(name, told);
            names.push((name, expected));
        }
        self.settle();
        self.check_rest();
        let ledger = &mut lock(&self.world).ledger;
        for (name, expected) in names {
            let fate = &ledger.get(name).fate;
            assert!(
                matches!(fate, Fate::ToldMany(reached, 0) if *reached == expected),
                "{name} should reach {expected}: {fate:?}"
            );
        }
    }

    pub(super) fn shut_down(mut self, is_amidst: bool) {
        self.note("shutdown");
        let open_count =
            lock(&self.world).ledger.people.iter().filter(|person| person.is_open()).count();
        let mut world = lock(&self.world);
        world.ledger.is_shutting_down = true;
        world.ledger.people.iter_mut().for_each(|person| person.give_reason(Reason::ShutdownPlan));
        drop(world);
        let grace = Duration::from_millis(1 + self.dice.roll(6000) as u64);
        let some = |part: usize| grace * u32::try_from(part).unwrap_or_default() / 8;
        let plan = ShutdownPlan::within(grace)
            .announce(some(self.dice.roll(3)))
            .spread(some(self.dice.roll(6)));
        self.simulation.begin_shutdown(plan);
        let mut deadline = self.elapsed + grace;
        if is_amidst {
            for _ in 0..self.dice.roll(100) {
                self.step();
                if self.dice.is(50) {
                    // Somebody becomes impatient.
                    let grace = some(self.dice.roll(9));
                    deadline = deadline.min(self.elapsed + grace);
                    self.simulation.begin_shutdown(ShutdownPlan::within(grace).spread(grace / 2));
                }
                let people = &mut lock(&self.world).ledger.people;
                people.iter_mut().for_each(|person| person.give_reason(Reason::ShutdownPlan));
            }
            self.come_to_rest();
        }
        self.settle();
        // The stages of the plan come one after another. Who lingers has a second; whoever is still
        // upgrading, the grace.
        for _ in 0..16 {
            if self.simulation.report().is_none() && self.elapsed < deadline {
                self.advance(grace / 16);
                self.settle();
            }
        }
        if self.simulation.report().is_none() {
            self.advance(grace + Duration::from_millis(100));
            self.settle();
        }
        let report = self.simulation.report().expect("the grace is over");
        if !is_amidst {
            assert_eq!(report.open_count, open_count, "how many were open");
            let mute_count = self.peers.iter().filter(|peer| peer.is_spoilt).count();
            assert!(report.aborted_count <= mute_count, "the others have answered: {report:?}");
        }
        if is_amidst && self.elapsed >= deadline {
            // What was published to a shard that had to go counts once, whoever was there.
            lock(&self.world).ledger.has_untold = true;
        }
        self.check_end();
    }

    fn check_end(mut self) {
        self.note("end");
        self.look();
        assert!(self.hub.connection_counts().iter().all(|&count| count == 0), "nobody is there");
        assert!(TOPICS.iter().all(|topic| self.hub.subscriber_count(topic) == 0));
        assert_eq!(live_count(), 0, "sessions and futures are dropped");
        let wires = self.simulation.wires();
        assert!(wires.iter().all(|wire| wire.is_closed()), "every connection has ended");
        let World { ledger, streams, promises, asked_count, done_count, .. } =
            &mut *lock(&self.world);
        let done_or_cut_count = *done_count + self.hub.cancelled_count();
        assert_eq!(*asked_count, done_or_cut_count, "work is done, or cut and counted");
        streams.clear();
        promises.clear();
        for (client, person) in ledger.people.iter().enumerate() {
            let counts = (person.connect_count, person.close_count);
            assert!(matches!(counts, (0, 0) | (1, 1)), "{client}: on_connect, on_close {counts:?}");
        }
        ledger.close_account(self.hub.dropped_count(), true);
    }
}
