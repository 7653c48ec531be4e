//! What the command line asks for.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

use crate::url::Url;

pub(crate) const HELP: &str = "\
Puts a WebSocket server under load, checks every answer, and tells how it did.

load URL [OPTIONS]        URL is ws://HOST[:PORT][/PATH][?QUERY]

  --mode MODE             echo       what is sent must come back, byte for byte (the default)
                          broadcast  what the first connection says must reach all, it included
                          idle       connect and hold; what comes is read and counted
                          visit      connect, upgrade, close, again and again
                          stall      connect and never read
  --connections N         how many at once [100]
  --in-flight N           messages unanswered, per connection; broadcasts under way
                          [1; with --rate without bound]
  --size BYTES            payload of a message [64]
  --kind text|binary      [binary]
  --rate PER_SECOND       messages, broadcasts or visits of all connections together, sent when
                          they are due whatever has been answered; latencies count from when
                          a message was due. Without it each answer asks for the next message
  --duration SECONDS      how long it is measured [10, unless there is --messages]
  --messages N            how many messages, broadcasts or visits are measured
  --warm-up SECONDS       load before that, which does not count [0]
  --threads N             threads of the load generator [1]
  --pid PID               the server's process: its processor time, memory, switches, instructions
  --from ADDR[,ADDR..]    addresses that connections come from, in turn: an address has 28 000
                          ports, and from the 14 000th on Linux takes long to find a free one
  --seed N                other payloads and masks [1]
  --json FILE|-           everything measured, as JSON, to a file or to standard output
  --quiet                 no line each second
  --help

Latencies are in microseconds. An interrupt (Ctrl-C) ends it early, with the report.
Exit code: 0; 1 if a connection failed, or a message was wrong, missing, or one too many; 2 if the
command line makes no sense.
";

/// What to do with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Echo,
    Broadcast,
    Idle,
    Visit,
    Stall,
}

impl Mode {
    const ALL: [(&str, Self); 5] = [
        ("echo", Self::Echo),
        ("broadcast", Self::Broadcast),
        ("idle", Self::Idle),
        ("visit", Self::Visit),
        ("stall", Self::Stall),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, mode)| *mode == self).map_or("", |(name, _)| name)
    }

    /// Whether it sends messages.
    pub(crate) fn speaks(self) -> bool {
        matches!(self, Self::Echo | Self::Broadcast)
    }
}

/// Which kind of message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Binary,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Binary => "binary",
        }
    }
}

/// Where the JSON goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    File(PathBuf),
    Stdout,
}

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) url: Url,
    pub(crate) mode: Mode,
    pub(crate) connection_count: usize,
    /// None: without bound.
    pub(crate) in_flight_count: Option<usize>,
    pub(crate) payload_bytes: usize,
    pub(crate) kind: Kind,
    /// None: a closed loop.
    pub(crate) rate_per_second: Option<f64>,
    /// None: until all messages have been sent.
    pub(crate) duration: Option<Duration>,
    pub(crate) message_count: Option<u64>,
    pub(crate) warm_up: Duration,
    pub(crate) thread_count: usize,
    pub(crate) pid: Option<u32>,
    pub(crate) from: Vec<IpAddr>,
    pub(crate) seed: u64,
    pub(crate) json: Option<Output>,
    pub(crate) is_quiet: bool,
}

impl Options {
    /// None: help is asked for.
    pub(crate) fn parse(mut parser: Parser) -> Result<Option<Self>, String> {
        let mut url = None;
        let mut options = Self::default();
        while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
            let (name, value) = match arg {
                Arg::Long("help") | Arg::Short('h') => return Ok(None),
                Arg::Long("quiet") => {
                    options.is_quiet = true;
                    continue;
                }
                Arg::Value(text) if url.is_none() => {
                    url = Some(text.parse::<Url>().map_err(|error| error.to_string())?);
                    continue;
                }
                Arg::Long(name) => (name.to_owned(), &mut parser),
                arg => return Err(format!("{}; try --help", arg.unexpected())),
            };
            options.set(&name, value)?;
        }
        options.url = url.ok_or("where is the server? A URL is needed; try --help")?;
        options.check()?;
        Ok(Some(options))
    }

    fn set(&mut self, name: &str, parser: &mut Parser) -> Result<(), String> {
        const NAMES: [&str; 14] = [
            "mode",
            "connections",
            "in-flight",
            "size",
            "kind",
            "rate",
            "duration",
            "messages",
            "warm-up",
            "threads",
            "pid",
            "from",
            "seed",
            "json",
        ];
        if !NAMES.contains(&name) {
            return Err(format!("there is no option --{name}; try --help"));
        }
        let value = parser.value().and_then(|value| value.string());
        let value = value.map_err(|error| format!("--{name}: {error}"))?;
        let value = Value { name, text: &value };
        match name {
            "mode" => self.mode = value.one_of(&Mode::ALL)?,
            "connections" => self.connection_count = value.count()?,
            "in-flight" => self.in_flight_count = Some(value.count()?),
            "size" => self.payload_bytes = value.number()?,
            "kind" => {
                self.kind = value.one_of(&[("text", Kind::Text), ("binary", Kind::Binary)])?;
            }
            "rate" => self.rate_per_second = Some(value.positive()?),
            "duration" => self.duration = Some(Duration::from_secs_f64(value.positive()?)),
            "messages" => self.message_count = Some(value.count()? as u64),
            "warm-up" => self.warm_up = Duration::from_secs_f64(value.seconds()?),
            "threads" => self.thread_count = value.count()?,
            "pid" => self.pid = Some(value.number()?),
            "from" => {
                let address = |text| Value { name, text }.number();
                self.from = value.text.split(',').map(address).collect::<Result<_, _>>()?;
            }
            "seed" => self.seed = value.number()?,
            _ if value.text == "-" => self.json = Some(Output::Stdout),
            _ => self.json = Some(Output::File(value.text.into())),
        }
        Ok(())
    }

    /// What fits together, and what follows from what was not said.
    fn check(&mut self) -> Result<(), String> {
        let mode = self.mode.name();
        if !self.mode.speaks() && self.in_flight_count.is_some() {
            return Err(format!("--in-flight: --mode {mode} sends no messages"));
        }
        let is_paced = self.rate_per_second.is_some() || self.message_count.is_some();
        if matches!(self.mode, Mode::Idle | Mode::Stall) && is_paced {
            return Err(format!("--mode {mode} only holds: no --rate and no --messages"));
        }
        if self.payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(format!("--size: at most {PAYLOAD_BYTES_MAX} bytes"));
        }
        if self.from.iter().any(|ip| ip.is_ipv4() != self.from[0].is_ipv4()) {
            return Err("--from: addresses of one family only".to_owned());
        }
        if self.mode.speaks() && self.rate_per_second.is_none() {
            self.in_flight_count.get_or_insert(1);
        }
        if self.message_count.is_none() {
            self.duration.get_or_insert(Duration::from_secs(10));
        }
        self.thread_count = self.thread_count.min(self.connection_count);
        Ok(())
    }
}

/// The largest message; six of its size are held in memory.
const PAYLOAD_BYTES_MAX: usize = 64 << 20;
/// The longest time, in seconds: 10 years, so that adding times never overflows.
const SECONDS_MAX: f64 = 315_360_000.0;

impl Default for Options {
    fn default() -> Self {
        Self {
            url: Url::default(),
            mode: Mode::Echo,
            connection_count: 100,
            in_flight_count: None,
            payload_bytes: 64,
            kind: Kind::Binary,
            rate_per_second: None,
            duration: None,
            message_count: None,
            warm_up: Duration::ZERO,
            thread_count: 1,
            pid: None,
            from: Vec::new(),
            seed: 1,
            json: None,
            is_quiet: false,
        }
    }
}

/// The value of an option.
struct Value<'a> {
    name: &'a str,
    text: &'a str,
}

impl Value<'_> {
    fn wrong(&self, what: &str) -> String {
        format!("--{} {}: {what}", self.name, self.text)
    }

    fn number<T: FromStr<Err: ToString>>(&self) -> Result<T, String> {
        self.text.parse().map_err(|error: T::Err| self.wrong(&error.to_string()))
    }

    fn count(&self) -> Result<usize, String> {
        match self.number()? {
            0 => Err(self.wrong("at least 1 is needed")),
            count => Ok(count),
        }
    }

    /// Not negative, and within reason.
    fn seconds(&self) -> Result<f64, String> {
        let seconds: f64 = self.number()?;
        let fits = (0.0..=SECONDS_MAX).contains(&seconds);
        if fits { Ok(seconds) } else { Err(self.wrong("a number from 0 to 315360000 is needed")) }
    }

    fn positive(&self) -> Result<f64, String> {
        let number = self.seconds()?;
        if number >= 1e-3 { Ok(number) } else { Err(self.wrong("at least 0.001 is needed")) }
    }

    fn one_of<T: Copy>(&self, all: &[(&str, T)]) -> Result<T, String> {
        let found = all.iter().find(|(name, _)| *name == self.text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
            self.wrong(&format!("{} are known", names.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests;
