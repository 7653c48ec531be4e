//! The server, as a process of its own: a process may hold no more descriptors than one side of
//! ten thousand connections needs. It is told what to do on its standard input, a line at a time,
//! and answers each on its standard output, on a line that begins with `@`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use peregrine::{
    BroadcastDelivery, Callbacks, ConnectionId, Delivery, Hub, Limits, OverflowPolicy, Reply,
    RunningServer, Server,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

const ORDER: &str = "PEREGRINE_SLOW_CONSUMERS";
const TOPIC: &str = "all";
/// How much may be on its way to each shard, so that it is little beside the outboxes.
const MAILBOX_BYTES: usize = 8 << 20;

/// Now, in microseconds; the same in all processes.
pub fn now_micros() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1000).expect("after the start")
}

/// As many descriptors as this process may have.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to the max");
}

/// What this process has in memory, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux with /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().strip_suffix(" kB")?.parse().ok()).expect("a size")
}

/// How a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Broadcast,
    BroadcastAsync,
    Publish,
    PublishAsync,
    /// One after another to each that said it would be slow.
    SendTo,
    SendToAsync,
}

impl Way {
    pub const ALL: [Self; 6] = [
        Self::Broadcast,
        Self::BroadcastAsync,
        Self::Publish,
        Self::PublishAsync,
        Self::SendTo,
        Self::SendToAsync,
    ];
}

/// What was asked of the server, and what it said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    /// Messages asked for: one for each connection addressed.
    pub asked_count: u64,
    /// Which of them were refused by an `Err`.
    pub refused_count: u64,
    /// `Hub::dropped_count`.
    pub dropped_count: u64,
    /// What the futures told; known once the server has shut down.
    pub reached_count: u64,
    pub missed_count: u64,
    /// Connections that the shutdown had to drop.
    pub aborted_count: u64,
    /// Members of the endpoint.
    pub connection_count: u64,
    pub resident_kib: u64,
    pub processor_micros: u64,
}

impl Account {
    /// What only futures told to be refused.
    pub fn told_refused_count(&self, way: Way) -> u64 {
        let missed_count = if way == Way::SendToAsync { self.missed_count } else { 0 };
        missed_count.saturating_sub(self.dropped_count)
    }

    fn figures(&mut self) -> [&mut u64; 9] {
        [
            &mut self.asked_count,
            &mut self.refused_count,
            &mut self.dropped_count,
            &mut self.reached_count,
            &mut self.missed_count,
            &mut self.aborted_count,
            &mut self.connection_count,
            &mut self.resident_kib,
            &mut self.processor_micros,
        ]
    }
}

/// The other end: the server's process, for whoever asks.
pub struct Served {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<Vec<u64>>,
    next: Option<Vec<u64>>,
    pub port: u16,
}

impl Served {
    /// Starts this program once more, as a server.
    pub fn start(
        arguments: &[&str],
        shards: usize,
        overflow: OverflowPolicy,
        outbox_kib: usize,
    ) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(arguments)
            .env(ORDER, format!("{shards} {overflow:?} {outbox_kib}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let orders = child.stdin.take().expect("a pipe");
        let (told, answers) = mpsc::channel();
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let Some((_, numbers)) = line.split_once('@') else { continue };
                let numbers = numbers.split_whitespace().map(|n| n.parse().expect("a number"));
                let _ = told.send(numbers.collect());
            }
        });
        let mut served = Self { child, orders, answers, next: None, port: 0 };
        served.port = u16::try_from(served.answer()[0]).expect("a port");
        served
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").expect("the server lives");
    }

    fn answer(&mut self) -> Vec<u64> {
        self.next.take().unwrap_or_else(|| self.answers.recv().expect("the server answers"))
    }

    /// Begins to send so many messages of so many bytes, one every so many microseconds.
    pub fn begin(&mut self, way: Way, count: usize, interval: Duration, bytes: usize) {
        let way = Way::ALL.iter().position(|&other| other == way).expect("one of all");
        self.order(&format!("send {way} {count} {} {bytes}", interval.as_micros()));
    }

    /// Waits until what was begun has been sent.
    pub fn sent(&mut self) {
        self.answer();
    }

    /// Whether what was begun has been sent.
    pub fn has_answered(&mut self) -> bool {
        self.next = self.next.take().or_else(|| self.answers.try_recv().ok());
        self.next.is_some()
    }

    pub fn account(&mut self) -> Account {
        self.order("account");
        self.read_account()
    }

    fn read_account(&mut self) -> Account {
        let mut account = Account::default();
        for (figure, number) in account.figures().into_iter().zip(self.answer()) {
            *figure = number;
        }
        account
    }

    /// Begins to shut the server down.
    pub fn begin_shutdown(&mut self) {
        self.order("shutdown");
    }

    /// Waits for the server's end, and for its last account.
    pub fn ended(mut self) -> Account {
        let account = self.read_account();
        assert!(self.child.wait().expect("it ends").success());
        account
    }
}

/// Serves if this process was started for it; whether it was.
pub fn serve_if_ordered() -> bool {
    let Ok(order) = std::env::var(ORDER) else { return false };
    let mut words = order.split(' ');
    let mut word = || words.next().expect("three words");
    let (shards, overflow) = (word().parse().expect("a number"), word().to_owned());
    let outbox_kib: usize = word().parse().expect("a number");
    raise_descriptor_limit();
    let mut limits = Limits::default();
    limits.overflow = match overflow.as_str() {
        "DropNewest" => OverflowPolicy::DropNewest,
        "DropOldest" => OverflowPolicy::DropOldest,
        _ => OverflowPolicy::Close,
    };
    limits.max_outbox_bytes = outbox_kib << 10;
    limits.max_mailbox_bytes = MAILBOX_BYTES;
    // Who is slow is to stay, and who only listens is not to be asked.
    (limits.ping_after, limits.idle_timeout) = (Duration::MAX, Duration::MAX);
    let slow = Arc::new(Mutex::new(Vec::new()));
    let known = Arc::clone(&slow);
    let handler = Callbacks::<()>::new().on_connect(move |ws| {
        ws.subscribe(TOPIC).expect("room for one");
        if ws.query("slow").is_some() {
            known.lock().unwrap_or_else(PoisonError::into_inner).push(ws.id());
        }
        Reply::none()
    });
    let server = Server::builder().shards(shards).limits(limits).websocket("/", handler);
    let running = server.bind("127.0.0.1:0").expect("a free port").start().expect("threads");
    say(&[u64::from(running.local_addr().port())]);
    Desk { hub: running.hub(), slow, account: Account::default(), told: Told::default() }
        .serve(running);
    true
}

fn say(numbers: &[u64]) {
    let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
    let mut out = std::io::stdout().lock();
    writeln!(out, "@{}", numbers.join(" ")).expect("somebody listens");
    out.flush().expect("somebody listens");
}

#[derive(Default)]
struct Told {
    deliveries: Vec<Delivery>,
    /// With how many they address.
    broadcasts: Vec<(BroadcastDelivery, u64)>,
}

/// Does what it is told.
struct Desk {
    hub: Hub,
    slow: Arc<Mutex<Vec<ConnectionId>>>,
    account: Account,
    told: Told,
}

impl Desk {
    fn serve(mut self, running: RunningServer) {
        let mut running = Some(running);
        for line in std::io::stdin().lines() {
            let line = line.expect("text");
            let mut words = line.split(' ');
            match words.next() {
                Some("send") => {
                    let mut number =
                        || words.next().and_then(|n| n.parse().ok()).expect("a number");
                    let way = Way::ALL[number()];
                    self.send_all(way, number(), number() as u64, number());
                    say(&[]);
                }
                Some("shutdown") => {
                    let report = running.take().expect("once").shutdown(Duration::from_secs(60));
                    self.account.aborted_count = report.expect("no panic").aborted_count as u64;
                    self.hear();
                    return self.tell();
                }
                _ => self.tell(),
            }
        }
    }

    fn send_all(&mut self, way: Way, count: usize, interval_micros: u64, bytes: usize) {
        let start = now_micros();
        let slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut message = vec![b'.'; bytes];
        for at in 0..count as u64 {
            let due = start + at * interval_micros;
            let early = due.saturating_sub(now_micros());
            if early > 0 {
                std::thread::sleep(Duration::from_micros(early));
            }
            // Since when it should be on its way: a late sender flatters nobody.
            let stamp = if interval_micros == 0 { now_micros() } else { due };
            message[..8].copy_from_slice(&stamp.to_be_bytes());
            // What is paced is to arrive: it is asked for again.
            while self.send(way, &slow, &message) && interval_micros > 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Sends one message; whether nobody gets it.
    fn send(&mut self, way: Way, slow: &[ConnectionId], message: &[u8]) -> bool {
        let everybody = self.hub.connection_counts().iter().sum::<usize>() as u64;
        let is_refused = match way {
            Way::Broadcast => self.hub.broadcast("/", message).is_err(),
            Way::Publish => self.hub.publish(TOPIC, message).is_err(),
            Way::BroadcastAsync => {
                self.told.broadcasts.push((self.hub.broadcast_async("/", message), everybody));
                false
            }
            Way::PublishAsync => {
                self.told.broadcasts.push((self.hub.publish_async(TOPIC, message), everybody));
                false
            }
            Way::SendTo | Way::SendToAsync => {
                for &id in slow {
                    self.account.asked_count += 1;
                    if way == Way::SendToAsync {
                        self.told.deliveries.push(self.hub.send_to_async(id, message));
                    } else if self.hub.send_to(id, message).is_err() {
                        self.account.refused_count += 1;
                    }
                }
                return false;
            }
        };
        self.account.asked_count += everybody;
        self.account.refused_count += if is_refused { everybody } else { 0 };
        is_refused
    }

    /// Waits for what the futures tell.
    fn hear(&mut self) {
        let Told { deliveries, broadcasts } = std::mem::take(&mut self.told);
        for delivery in deliveries {
            let has_reached = u64::from(delivery.wait().is_ok());
            self.account.reached_count += has_reached;
            self.account.missed_count += 1 - has_reached;
        }
        for (broadcast, everybody) in broadcasts {
            match broadcast.wait() {
                Ok(report) => {
                    let missed_count = report.gone_count + report.overloaded_count;
                    self.account.reached_count += report.reached_count as u64;
                    self.account.missed_count += missed_count as u64;
                }
                Err(_) => self.account.refused_count += everybody,
            }
        }
    }

    fn tell(&mut self) {
        let processor = clock_gettime(ClockId::ProcessCPUTime);
        let processor = processor.tv_sec * 1_000_000 + processor.tv_nsec / 1000;
        let account = &mut self.account;
        account.processor_micros = u64::try_from(processor).expect("time goes on");
        account.dropped_count = self.hub.dropped_count();
        account.connection_count = self.hub.connection_counts().iter().sum::<usize>() as u64;
        account.resident_kib = resident_kib();
        say(&self.account.figures().map(|figure| *figure));
    }
}
