//! What goes to and comes from the sockets of a thread.

use std::io::{self, ErrorKind, Read};

use mio::{Interest, Token};

use super::{CLOSING, ENDING, OPENING, OPENING_COUNT_MAX, Phase, SILENCE, Worker};
use crate::incoming::Item;
use crate::link::Stage;
use crate::options::Mode;
use crate::shared::nanos;
use crate::tally::Fault;

impl Worker<'_> {
    /// Begins to open connections, as many as may be at once.
    pub(super) fn open(&mut self) {
        let options = &self.shared.options;
        let opening_count_max = OPENING_COUNT_MAX.div_ceil(options.thread_count);
        while self.opening_count < opening_count_max {
            let Some(index) = self.to_open.pop_front() else { return };
            let number = self.thread + index * options.thread_count;
            let from = options.from.get(number % options.from.len().max(1)).copied();
            let now = self.shared.clock.now();
            self.opening_count += 1;
            self.present_count += 1;
            let socket = self.links[index].connect(self.shared.address, from, now);
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registered = socket
                .and_then(|socket| self.poll.registry().register(socket, Token(index), interest));
            if let Err(error) = registered {
                self.fail(index, Fault::Connect, || explained(&error));
            }
        }
    }

    pub(super) fn writable(&mut self, index: usize) {
        let link = &mut self.links[index];
        if link.stage != Stage::Connecting {
            if link.unblock() {
                self.dirty.push(index);
            }
            return;
        }
        match link.connected(&self.shared.upgrade) {
            Ok(()) => self.dirty.push(index),
            Err(error) => self.fail(index, Fault::Connect, || explained(&error)),
        }
    }

    /// Reads all that has come.
    pub(super) fn readable(&mut self, index: usize, buffer: &mut [u8], is_end: bool) {
        let is_stalling = self.shared.options.mode == Mode::Stall;
        loop {
            let link = &mut self.links[index];
            let Some(socket) = &mut link.socket else { return };
            if is_stalling && link.stage == Stage::Open {
                if is_end {
                    self.tally.ended_count += 1;
                    self.remove(index);
                }
                return;
            }
            match socket.read(buffer) {
                Ok(0) => return self.ended(index),
                Ok(length) => {
                    self.now = self.shared.clock.now();
                    self.heard = self.now;
                    self.take(index, &buffer[..length]);
                    // A short read was the last one: for more there will be an event.
                    if length < buffer.len() && !is_end {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.broken(index, &error),
            }
        }
    }

    fn take(&mut self, index: usize, mut bytes: &[u8]) {
        if self.links[index].stage == Stage::Upgrading {
            let head = &mut self.links[index].head;
            let before = head.len();
            head.extend(bytes);
            match self.shared.upgrade.check(head) {
                Ok(None) => return,
                Ok(Some(length)) => bytes = &bytes[length - before..],
                Err(what) => return self.fail(index, Fault::Upgrade, || what),
            }
            self.opened(index);
        }
        // The rest of what has come when something ended it is not looked at.
        while !bytes.is_empty() && self.links[index].socket.is_some() {
            let end = self.play(|role, cx| role.end(cx, index));
            let item = self.links[index].incoming.take(&mut bytes, &self.shared.script, end);
            if let Some(item) = item {
                self.came(index, item);
            }
        }
    }

    fn opened(&mut self, index: usize) {
        let link = &mut self.links[index];
        link.head = Vec::new();
        let took = self.now - link.since;
        (link.stage, link.since) = (Stage::Open, self.now);
        self.opening_count -= 1;
        self.tally.opened_count += 1;
        self.tally.upgrades.saturating_record(took.max(1));
        self.changed(index);
    }

    fn came(&mut self, index: usize, item: Item) {
        let link = &mut self.links[index];
        match item {
            Item::Messages(count) if self.phase == Phase::Loaded => {
                self.play(|role, cx| role.received(cx, index, count));
            }
            // Too late: they have been given up.
            Item::Messages(_) | Item::Pong => {}
            Item::Ping(payload) => {
                self.tally.ping_count += 1;
                if matches!(link.stage, Stage::Open) {
                    link.pong(&payload);
                    self.dirty.push(index);
                }
            }
            Item::Close(_) if link.stage == Stage::Closing => {
                (link.stage, link.since) = (Stage::Ending, self.now);
                self.changed(index);
            }
            Item::Close(code) => {
                let code_count = self.tally.errors.close_codes.entry(code.unwrap_or(1005));
                *code_count.or_default() += 1;
                link.close(code, self.now);
                // What can be answered at once is; the connection is not waited for.
                let _ = link.flush(&self.shared.script);
                self.fail(index, Fault::Close, || match code {
                    Some(code) => format!("the server sent Close {code}"),
                    None => "the server sent Close without a code".to_owned(),
                });
            }
            Item::Surplus(_) if !self.shared.options.mode.speaks() => {
                self.tally.unasked_count += 1;
            }
            Item::Surplus(message) => {
                self.fail(index, Fault::Surplus, || format!("nothing was to come, but {message}"));
            }
            Item::Wrong(what) => self.fail(index, Fault::Wrong, || what),
            Item::Malformed(what) => self.fail(index, Fault::Malformed, || what),
        }
    }

    /// The server has ended the connection.
    fn ended(&mut self, index: usize) {
        match self.links[index].stage {
            Stage::Ending => self.remove(index),
            Stage::Closing if self.phase == Phase::Closing => self.remove(index),
            Stage::Connecting | Stage::Upgrading => {
                self.fail(index, Fault::Upgrade, || "ended without an answer".to_owned());
            }
            _ => self.fail(index, Fault::End, || "ended by the server without Close".to_owned()),
        }
    }

    fn broken(&mut self, index: usize, error: &io::Error) {
        match self.links[index].stage {
            Stage::Ending | Stage::Absent => self.remove(index),
            Stage::Connecting => self.fail(index, Fault::Connect, || explained(error)),
            Stage::Upgrading => self.fail(index, Fault::Upgrade, || error.to_string()),
            _ => self.fail(index, Fault::End, || error.to_string()),
        }
    }

    /// Counts an error, and ends the connection: what else would come cannot be trusted.
    fn fail(&mut self, index: usize, fault: Fault, told: impl FnOnce() -> String) {
        let name = self.play(|_, cx| cx.name(index));
        self.tally.errors.add(fault, 1, || format!("{name}: {}", told()));
        self.remove(index);
    }

    fn remove(&mut self, index: usize) {
        let link = &mut self.links[index];
        if link.stage == Stage::Absent {
            return;
        }
        if matches!(link.stage, Stage::Connecting | Stage::Upgrading) {
            self.opening_count -= 1;
        }
        self.present_count -= 1;
        link.drop_socket();
        self.changed(index);
    }

    /// Before the load begins and after it has ended, nothing concerns the role.
    fn changed(&mut self, index: usize) {
        if self.phase == Phase::Loaded {
            self.play(|role, cx| role.changed(cx, index));
        }
    }

    /// Writes what there is to write.
    pub(super) fn flush(&mut self) {
        while let Some(index) = self.dirty.pop() {
            let link = &mut self.links[index];
            match link.flush(&self.shared.script) {
                Ok(()) => {}
                // There is an event on its way, and perhaps a Close frame that says why.
                Err(error) if is_gone(&error) => link.block(),
                Err(error) => self.broken(index, &error),
            }
        }
    }

    /// Looks for what takes too long.
    pub(super) fn look(&mut self) {
        let is_needed = self.opening_count > 0
            || self.phase == Phase::Closing
            || self.shared.options.mode == Mode::Visit;
        if !is_needed || self.now < self.looked + nanos(self.tick) {
            return;
        }
        self.looked = self.now;
        for index in 0..self.links.len() {
            let (stage, took) = {
                let link = &self.links[index];
                (link.stage, self.now - link.since.min(self.now))
            };
            match stage {
                Stage::Connecting if took > nanos(OPENING) => {
                    self.fail(index, Fault::Connect, || format!("not within {OPENING:?}"));
                }
                Stage::Upgrading if took > nanos(OPENING) => {
                    self.fail(index, Fault::Upgrade, || format!("no answer for {OPENING:?}"));
                }
                Stage::Closing if self.phase == Phase::Closing && took > nanos(CLOSING) => {
                    self.remove(index);
                }
                Stage::Closing if took > nanos(SILENCE) => {
                    self.fail(index, Fault::End, || format!("no Close within {SILENCE:?}"));
                }
                Stage::Ending if took > nanos(ENDING) => self.remove(index),
                _ => {}
            }
        }
    }

    /// The end of the run.
    pub(super) fn close_all(&mut self) {
        self.phase = Phase::Closing;
        self.to_open.clear();
        for index in 0..self.links.len() {
            let link = &mut self.links[index];
            match link.stage {
                Stage::Open if self.shared.options.mode != Mode::Stall => {
                    link.close(Some(1000), self.now);
                    self.dirty.push(index);
                }
                Stage::Closing | Stage::Ending | Stage::Absent => {}
                _ => self.remove(index),
            }
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

/// What can be done about it.
fn explained(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrNotAvailable => {
            format!("{error}: no port is left at this address; see --from")
        }
        _ => format!("no connection: {error}"),
    }
}
