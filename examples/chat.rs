//! A chat to look at: a page, and behind it the endpoint `/web_socket`. Every tab sees who is
//! there and on which shard, sends to itself, to another, to all, and can ask to be closed.
//!
//! ```text
//! cargo run --release --example chat -- [--addr HOST:PORT] [--shards N]
//! ```
//!
//! A tab speaks in lines, each a command that the page has put in front of what the user typed, so
//! that no text can be mistaken for a command: see [`Command`]. The server answers in [`Json`].

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::io::{self, Write as _};
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peregrine::{
    Close, ClosedBy, ConnectionId, Handler, Message, Reply, Response, SendError, Server, WebSocket,
};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

const PAGE: &str = include_str!("chat.html");

/// The page needs nothing but itself and its connection; whatever else a text could smuggle in, the
/// browser refuses.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
    script-src 'unsafe-inline'; img-src data:; connect-src 'self'; form-action 'self'; \
    base-uri 'none'; frame-ancestors 'none'";

const USAGE: &str = "\
A chat in the browser, served by peregrine.

Usage: chat [--addr HOST:PORT] [--shards N]

  --addr HOST:PORT  where to listen; port 0 draws a free one (default 127.0.0.1:8080)
  --shards N        how many threads serve (default: one for each processor)
  --help            this text
";

/// How long the tabs have to answer our Close frames.
const GRACE: Duration = Duration::from_secs(10);

/// The longest text that is passed on. The page's own limit of 1000 UTF-16 units stays below it.
const TEXT_LIMIT_BYTES: usize = 4096;
const NAME_LIMIT_CHARS: usize = 24;
/// The most members that a tab is told by name; how many there are it is told in any case.
const ROSTER_LIMIT_COUNT: usize = 200;

fn main() -> ExitCode {
    let outcome = match Options::parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => serve(&options),
        Ok(None) => io::stdout().write_all(USAGE.as_bytes()).map_err(Into::into),
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line asks for.
struct Options {
    address: String,
    shard_count: Option<usize>,
}

impl Options {
    /// Reads the arguments; `None` stands for `--help`.
    fn parse(
        arguments: impl IntoIterator<Item = std::ffi::OsString>,
    ) -> Result<Option<Self>, String> {
        let mut options = Self { address: "127.0.0.1:8080".to_owned(), shard_count: None };
        let mut arguments = arguments.into_iter().map(|a| a.to_string_lossy().into_owned());
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--addr" => options.address = value()?,
                "--shards" => {
                    let count = value()?;
                    let parsed: Result<NonZero<usize>, _> = count.parse();
                    let parsed = parsed.map_err(|_| format!("{count:?} is not a count of shards"));
                    options.shard_count = Some(parsed?.get());
                }
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("unknown argument {argument:?}")),
            }
        }
        Ok(Some(options))
    }
}

/// Serves until a signal comes, then shuts down gracefully. A second signal ends it at once.
fn serve(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let is_ending = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the first signal finds the flag clear, and only then is it set.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&is_ending))?;
        signal_hook::flag::register(signal, Arc::clone(&is_ending))?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM])?;

    let page = Response::html(PAGE).header("Content-Security-Policy", PAGE_POLICY)?;
    let mut builder = Server::builder().get("/", page).websocket("/web_socket", Chat::default());
    if let Some(count) = options.shard_count {
        builder = builder.shards(count);
    }
    let server = builder.bind(options.address.as_str())?;
    let shard_count = server.hub().connection_counts().len();
    let (address, port) = (server.local_addr(), server.local_addr().port());
    let running = server.start()?;

    let mut out = io::stdout();
    if address.ip().is_unspecified() {
        writeln!(out, "Serving http://localhost:{port}/ and every other address of this machine")?;
    } else {
        writeln!(out, "Serving http://{address}/")?;
    }
    writeln!(out, "Shards: {shard_count}. Ctrl-C shuts down.")?;
    out.flush()?;

    signals.forever().next();
    writeln!(out, "Shutting down.")?;
    let report = running.shutdown(GRACE)?;
    let (open, aborted) = (report.open_count, report.aborted_count);
    writeln!(out, "Shut down: {open} connections were open, {aborted} had to be dropped.")?;
    Ok(())
}

/// The endpoint: who is there, and who says what to whom.
#[derive(Default)]
struct Chat {
    roster: Mutex<Roster>,
}

/// Who is there, on all shards: what a new tab has to know at once.
///
/// Every change has a version, and tells it. The lock is not held while it is told, so two changes
/// may be told in another order than they were made. A tab ignores those that its copy already
/// holds, and asks for another copy when it sees by a pong that it has missed one (a broadcast can
/// be refused, see [`SendError`]).
#[derive(Default)]
struct Roster {
    version: u64,
    members: BTreeMap<ConnectionId, Arc<str>>,
}

impl Chat {
    /// Held for a few lines only, never while something is sent.
    fn roster(&self) -> MutexGuard<'_, Roster> {
        // A panic cannot leave a roster half changed.
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the roster, for one tab.
    fn snapshot(&self, kind: &'static str, ws: &Tab<'_>) -> String {
        let (version, total, members) = {
            let roster = self.roster();
            let members = roster.members.iter().take(ROSTER_LIMIT_COUNT);
            let members: Vec<_> = members.map(|(id, name)| (*id, Arc::clone(name))).collect();
            (roster.version, roster.members.len(), members)
        };
        let members = members.iter().map(|(id, name)| person(Json::object(), *id, name));
        person(Json::event(kind), ws.id(), &ws.session().clone())
            .number("version", version)
            .number("total", total)
            .number("shards", ws.hub().connection_counts().len())
            .list("members", members)
            .end()
    }

    /// Does what a tab asks for. The error is the sentence that the tab's user gets to read.
    fn obey(&self, ws: &Tab<'_>, command: Command<'_>) -> Result<Reply<'static>, SendError> {
        let own = ws.id();
        let name = Arc::clone(ws.session());
        let message = |audience, reference, text| {
            person(Json::event("message"), own, &name)
                .text("to", audience)
                .number("ref", reference)
                .text("text", text)
                .end()
        };
        match command {
            Command::Ping { nonce } => {
                let (version, total) = {
                    let roster = self.roster();
                    (roster.version, roster.members.len())
                };
                let pong = Json::event("pong").text("nonce", nonce);
                return Ok(pong.number("version", version).number("total", total).end().into());
            }
            Command::Roster => return Ok(self.snapshot("roster", ws).into()),
            Command::Own { reference, text } => {
                ws.send_to(own, message("self", reference, text))?;
            }
            Command::One { reference, id, text } => {
                // On another shard a stale id would be noticed only later, out of our sight.
                if !self.roster().members.contains_key(&id) {
                    return Err(SendError::Gone);
                }
                ws.send_to(id, message("one", reference, text))?;
            }
            Command::All { reference, text } => ws.broadcast(message("all", reference, text))?,
            Command::Close => {
                ws.close();
                return Ok(Json::event("note").text("text", "Closing connection").end().into());
            }
        }
        Ok(Reply::none())
    }
}

/// A connection; its session is the name of whoever sits in front of the tab.
type Tab<'w> = WebSocket<'w, Arc<str>>;

impl Handler for Chat {
    type Session = Arc<str>;

    fn on_connect(&self, ws: &mut Tab<'_>) -> Reply<'static> {
        let (id, name) = (ws.id(), presentable(ws.query("name").unwrap_or_default()));
        *ws.session_mut() = Arc::clone(&name);
        let version = {
            let mut roster = self.roster();
            roster.members.insert(id, Arc::clone(&name));
            roster.version += 1;
            roster.version
        };
        let joined = person(Json::event("joined"), id, &name).number("version", version).end();
        report(ws.broadcast_except(id, joined));
        self.snapshot("welcome", ws).into()
    }

    fn on_message<'m>(&self, ws: &mut Tab<'_>, message: Message<'m>) -> Reply<'m> {
        let failed = |reference: u64, problem: &dyn Display| {
            let event = Json::event("failed").number("ref", reference);
            event.text("text", &problem.to_string()).end().into()
        };
        match message.as_text().ok_or("only text is understood here").and_then(Command::parse) {
            Ok(command) => {
                let reference = command.reference();
                self.obey(ws, command).unwrap_or_else(|error| failed(reference, &error))
            }
            Err(problem) => failed(0, &problem),
        }
    }

    fn on_close(&self, ws: &mut Tab<'_>, close: &Close) -> Reply<'static> {
        let (id, name) = (ws.id(), Arc::clone(ws.session()));
        let version = {
            let mut roster = self.roster();
            roster.members.remove(&id);
            roster.version += 1;
            roster.version
        };
        let by = match close.by() {
            ClosedBy::Peer => "peer",
            ClosedBy::Application => "application",
            ClosedBy::Server => "server",
        };
        let left = person(Json::event("left"), id, &name).number("version", version);
        report(ws.broadcast(left.number("code", close.code()).text("by", by).end()));
        Json::event("note").text("text", &format!("Goodbye, {name}")).end().into()
    }
}

/// A join or a leave that was not told costs nobody a message: the tabs notice and ask.
fn report(told: Result<(), SendError>) {
    match told {
        Ok(()) | Err(SendError::ShuttingDown) => {}
        Err(error) => eprintln!("the tabs were not told of a change of the roster: {error}"),
    }
}

/// A name that disturbs nobody: short, on one line, never empty.
fn presentable(name: &str) -> Arc<str> {
    let name: String = name.chars().filter(|c| !c.is_control()).take(NAME_LIMIT_CHARS).collect();
    match name.trim() {
        "" => "guest".into(),
        name => name.into(),
    }
}

/// What a tab asks for, as one text: the first word says what, what the user typed comes last and
/// is not looked into.
#[derive(Clone, Copy)]
enum Command<'m> {
    /// `ping NONCE`
    Ping { nonce: &'m str },
    /// `roster`
    Roster,
    /// `self REF TEXT`
    Own { reference: u64, text: &'m str },
    /// `to REF ID TEXT`
    One { reference: u64, id: ConnectionId, text: &'m str },
    /// `all REF TEXT`
    All { reference: u64, text: &'m str },
    /// `close`
    Close,
}

impl<'m> Command<'m> {
    fn parse(line: &'m str) -> Result<Self, &'static str> {
        fn word(line: &str) -> (&str, &str) {
            line.split_once(' ').unwrap_or((line, ""))
        }
        fn reference(line: &str) -> Result<(u64, &str), &'static str> {
            let (number, rest) = word(line);
            Ok((number.parse().map_err(|_| "the reference is not a number")?, rest))
        }
        if line.len() > TEXT_LIMIT_BYTES {
            return Err("the text is too long");
        }
        let (verb, rest) = word(line);
        match verb {
            "ping" => Ok(Self::Ping { nonce: rest }),
            "roster" => Ok(Self::Roster),
            "close" => Ok(Self::Close),
            "self" => reference(rest).map(|(reference, text)| Self::Own { reference, text }),
            "all" => reference(rest).map(|(reference, text)| Self::All { reference, text }),
            "to" => {
                let (reference, rest) = reference(rest)?;
                let (id, text) = word(rest);
                let id = id.parse().map_err(|_| "the receiver is not an id")?;
                Ok(Self::One { reference, id, text })
            }
            _ => Err("there is no such command"),
        }
    }

    /// The tab's own number for what it sends, by which it recognises a failure.
    fn reference(self) -> u64 {
        match self {
            Self::Own { reference, .. }
            | Self::One { reference, .. }
            | Self::All { reference, .. } => reference,
            Self::Ping { .. } | Self::Roster | Self::Close => 0,
        }
    }
}

/// A JSON object (RFC 8259), written field by field. Keys are ours and need no escaping.
struct Json(String);

impl Json {
    fn object() -> Self {
        Self("{".to_owned())
    }

    fn event(kind: &'static str) -> Self {
        Self::object().text("type", kind)
    }

    fn key(&mut self, key: &'static str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        let _ = write!(self.0, "\"{key}\":");
    }

    fn number(mut self, key: &'static str, value: impl Display) -> Self {
        self.key(key);
        let _ = write!(self.0, "{value}");
        self
    }

    /// Escapes what section 7 demands: the quotation mark, the backslash, the control characters.
    fn text(mut self, key: &'static str, value: &str) -> Self {
        self.key(key);
        self.0.push('"');
        for character in value.chars() {
            match character {
                '"' | '\\' => self.0.extend(['\\', character]),
                '\0'..='\x1F' => {
                    let _ = write!(self.0, "\\u{:04x}", u32::from(character));
                }
                _ => self.0.push(character),
            }
        }
        self.0.push('"');
        self
    }

    fn list(mut self, key: &'static str, values: impl Iterator<Item = Self>) -> Self {
        self.key(key);
        let values: Vec<_> = values.map(Self::end).collect();
        let _ = write!(self.0, "[{}]", values.join(","));
        self
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// The fields that name a connection.
fn person(object: Json, id: ConnectionId, name: &str) -> Json {
    object.text("id", &id.to_string()).number("shard", id.shard()).text("name", name)
}
