//! One thread of the load generator: its connections and their turns.

mod traffic;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::mpsc::Sender;
use std::time::Duration;

use mio::{Events, Poll, Token};

use crate::alarm::Alarm;
use crate::link::Link;
use crate::options::Mode;
use crate::role::{Context, Role};
use crate::shared::{Shared, nanos};
use crate::tally::{Fault, Tally};

pub(crate) const WAKER: Token = Token(usize::MAX - 1);
const ALARM: Token = Token(usize::MAX - 2);

/// How many connections are being opened at once, of all threads: fewer than the shortest backlog
/// of a listener that is usual.
const OPENING_COUNT_MAX: usize = 64;
/// How long opening a connection may take.
const OPENING: Duration = Duration::from_secs(10);
/// How long nothing may come while something is to come; how long a closing handshake may take.
const SILENCE: Duration = Duration::from_secs(5);
/// How long the server may take to answer the Close at the end of the run.
const CLOSING: Duration = Duration::from_secs(1);
/// How long the server may take to end a connection after both have sent Close; then we do, as RFC
/// 6455 section 7.1.1 allows. The port of who ends it is not free for a while.
const ENDING: Duration = Duration::from_millis(50);
/// How often what no event announces is looked for; and when connections come and go.
const TICK: Duration = Duration::from_millis(100);
const VISIT_TICK: Duration = Duration::from_millis(20);
/// How often what has been counted is shown.
const SHOW: Duration = Duration::from_secs(1);
/// What is read at once.
const READ_BYTES: usize = 256 << 10;

/// What a thread tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// All of its connections that can be open are: so many.
    Opened(u64),
    /// All has been sent, and all has come that will.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    /// So many connections are open, others are still being opened by other threads.
    Waiting(usize),
    Loaded,
    Done,
    Closing,
}

pub(crate) struct Worker<'a> {
    shared: &'a Shared,
    thread: usize,
    poll: Poll,
    alarm: Alarm,
    notices: Sender<Notice>,
    role: Box<dyn Role>,
    links: Vec<Link>,
    tally: Tally,
    dirty: Vec<usize>,
    to_open: VecDeque<usize>,
    phase: Phase,
    tick: Duration,
    now: u64,
    /// When the server was heard last.
    heard: u64,
    /// When the last message was sent.
    over: Option<u64>,
    looked: u64,
    shown: u64,
    /// How many are connecting or upgrading; and how many there are.
    opening_count: usize,
    present_count: usize,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        thread: usize,
        poll: Poll,
        role: Box<dyn Role>,
        notices: Sender<Notice>,
    ) -> io::Result<Self> {
        let options = &shared.options;
        let own = (thread..options.connection_count).step_by(options.thread_count);
        // In a broadcast all get the same messages.
        let first = |number: usize| if options.mode == Mode::Echo { number as u64 } else { 0 };
        let links: Vec<_> = own.map(|number| Link::new(first(number))).collect();
        let to_open = if options.mode == Mode::Visit { 0 } else { links.len() };
        Ok(Self {
            shared,
            thread,
            alarm: Alarm::new(poll.registry(), ALARM)?,
            poll,
            notices,
            role,
            links,
            tally: Tally::default(),
            dirty: Vec::new(),
            to_open: (0..to_open).collect(),
            phase: Phase::Opening,
            tick: TICK,
            now: 0,
            heard: 0,
            over: None,
            looked: 0,
            shown: 0,
            opening_count: 0,
            present_count: 0,
        })
    }

    pub(crate) fn run(mut self) -> io::Result<Tally> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; READ_BYTES];
        let is_visiting = self.shared.options.mode == Mode::Visit;
        self.tick = if is_visiting { VISIT_TICK } else { TICK };
        while !(self.phase == Phase::Closing && self.present_count == 0) {
            self.now = self.shared.clock.now();
            self.look();
            self.step()?;
            match self.poll.poll(&mut events, Some(self.tick)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            self.now = self.shared.clock.now();
            self.begin();
            for event in &events {
                let index = event.token().0;
                if index >= self.links.len() {
                    continue;
                }
                if event.is_writable() {
                    self.writable(index);
                }
                if event.is_readable() || event.is_read_closed() {
                    self.readable(index, &mut buffer, event.is_read_closed());
                }
                self.flush();
            }
        }
        Ok(self.tally)
    }

    /// Has the load begun? To be asked before anything is read, for others may be faster.
    fn begin(&mut self) {
        let Phase::Waiting(count) = self.phase else { return };
        let Some(window) = self.shared.window() else { return };
        self.phase = Phase::Loaded;
        self.tally.window = window;
        // It has begun since this turn did.
        self.now = self.shared.clock.now();
        (self.heard, self.shown) = (self.now, self.now);
        let lost_count = count - self.present_count;
        self.play(|role, cx| role.begin(cx, lost_count));
    }

    /// What the phase asks for.
    fn step(&mut self) -> io::Result<()> {
        if self.shared.is_closing() && self.phase != Phase::Closing {
            self.close_all();
        }
        let is_opened = self.to_open.is_empty() && self.opening_count == 0;
        if self.phase == Phase::Opening && is_opened {
            self.phase = Phase::Waiting(self.present_count);
            self.tell(Notice::Opened(self.present_count as u64));
        }
        self.begin();
        if self.now >= self.shown + nanos(SHOW) {
            self.shown += nanos(SHOW);
            self.tally.pass_on(&mut self.shared.live());
        }
        if self.phase == Phase::Loaded {
            self.load()?;
        }
        self.open();
        self.flush();
        Ok(())
    }

    fn load(&mut self) -> io::Result<()> {
        let next = self.play(|role, cx| role.turn(cx));
        if let Some(at) = next.filter(|at| *at < self.now + nanos(TICK)) {
            self.alarm.set(at, self.shared.clock.now())?;
        }
        let under_way = self.play(|role, cx| role.under_way(cx));
        if self.role.is_over() {
            self.over.get_or_insert(self.now);
        }
        // While it is timed, silence is what is measured.
        let is_waiting = self.over.is_some() || self.tally.window.end == u64::MAX;
        let silent_since = self.heard.max(self.over.unwrap_or_default());
        let is_silent = self.now > silent_since + nanos(SILENCE);
        let is_alone = self.present_count == 0 && self.shared.options.mode != Mode::Visit;
        if under_way > 0 && is_waiting && is_silent {
            let count = self.play(|role, cx| role.give_up(cx));
            if count > 0 {
                self.tally.errors.add(Fault::Missing, count, || {
                    format!("{count} messages had not come {SILENCE:?} after the last one")
                });
            }
            self.done();
        } else if is_alone || self.role.is_over() && under_way == 0 {
            self.done();
        }
        Ok(())
    }

    /// Has the role do something.
    fn play<R>(&mut self, act: impl FnOnce(&mut dyn Role, &mut Context<'_>) -> R) -> R {
        let mut cx = Context {
            shared: self.shared,
            thread: self.thread,
            now: self.now,
            links: &mut self.links,
            tally: &mut self.tally,
            dirty: &mut self.dirty,
            to_open: &mut self.to_open,
        };
        act(&mut *self.role, &mut cx)
    }

    fn done(&mut self) {
        self.phase = Phase::Done;
        self.tally.pass_on(&mut self.shared.live());
        self.tell(Notice::Done);
    }

    fn tell(&self, notice: Notice) {
        // It fails only if the main thread has given up.
        let _ = self.notices.send(notice);
    }
}
