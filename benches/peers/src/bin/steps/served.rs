//! The server, in a process of its own: this program once more.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio, exit};
use std::thread;
use std::time::Duration;

use peregrine::{CloseCode, Handler, Limits, Message, Reply, Server, WebSocket};

use crate::Result;

/// What makes the process the server.
pub(crate) const ORDER: &str = "--serve";

/// Nothing becomes due meanwhile.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// As in `examples/echo.rs`.
struct Echo;

impl Handler for Echo {
    type Session = ();

    fn on_message<'m>(&self, _: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        message.into()
    }
}

/// As in the peer server `peregrine`.
struct ToAll;

impl Handler for ToAll {
    type Session = ();

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        if let Err(overloaded) = ws.broadcast(message) {
            ws.close_with(CloseCode::TRY_AGAIN_LATER, &overloaded.to_string());
        }
        Reply::none()
    }
}

/// Both on one shard, but that nothing in it takes long: each step takes microseconds.
/// Ends with the process that started it.
pub(crate) fn serve() -> Result<()> {
    thread::spawn(|| {
        // Nothing is ever said: it is the end that is waited for.
        drop(io::stdin().read(&mut [0]));
        exit(0);
    });
    let mut limits = Limits::default();
    limits.handshake_timeout = NEVER;
    limits.ping_after = NEVER;
    limits.idle_timeout = 2 * NEVER;
    limits.slow_handler_after = NEVER;
    let server = Server::builder()
        .shards(1)
        .limits(limits)
        .websocket("/echo", Echo)
        .websocket("/all", ToAll)
        .bind("127.0.0.1:0")?;
    writeln!(io::stdout(), "{}", server.local_addr())?;
    Ok(server.run()?)
}

/// The server, from the other side; killed when it is not wanted any more.
#[derive(Debug)]
pub(crate) struct Served {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Served {
    pub(crate) fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(ORDER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take();
        let mut served = Self { child, address: ([127, 0, 0, 1], 0).into() };
        let mut line = String::new();
        BufReader::new(output.ok_or("no pipe")?).read_line(&mut line)?;
        served.address = line.trim().parse().map_err(|_| format!("no address: {line:?}"))?;
        Ok(served)
    }

    /// The thread that does the work.
    pub(crate) fn shard(&self) -> Result<u32> {
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let thread = thread?;
            if fs::read_to_string(thread.path().join("comm"))?.trim() == "peregrine-0" {
                return Ok(thread.file_name().to_string_lossy().parse()?);
            }
        }
        Err("the server has no thread called peregrine-0".into())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Either may fail: it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
