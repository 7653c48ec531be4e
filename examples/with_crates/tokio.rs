//! peregrine beside tokio: handlers await what tokio drives. A service for exchange rates listens
//! on TCP; members are checked against it before the upgrade, and ask it for rates afterwards. A
//! task with a timer tells everybody the time.
//!
//! ```text
//! cargo run --release --example tokio -- [ADDRESS]
//! ```
//!
//! Futures that a handler returns are polled on the thread of their connection's shard, which is
//! none of tokio's. `on_shard_thread` lets each of these threads enter the runtime's context, so
//! that the futures may use tokio's sockets and timers; tokio's own threads drive those.

#![allow(clippy::print_stdout, reason = "it tells where it serves")]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use peregrine::{
    Accept, Endpoint, Handler, Hub, Message, Reply, Request, Response, SendError, Server,
    ServerBuilder,
};
use peregrine::{Upgrade, WebSocket};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle, Runtime};
use tokio::time::{Instant, interval, sleep, timeout};

/// How long the service may take for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A client of the service, to be used from any thread.
#[derive(Clone)]
pub(crate) struct Rates {
    tokio: Handle,
    service: SocketAddr,
}

impl Rates {
    /// Asks the service; `None` if it knows no answer.
    async fn ask(&self, question: String) -> io::Result<Option<String>> {
        let answer = async {
            let mut socket = BufReader::new(TcpStream::connect(self.service).await?);
            socket.write_all(format!("{question}\n").as_bytes()).await?;
            let mut answer = String::new();
            socket.read_line(&mut answer).await?;
            Ok(Some(answer.trim().to_owned()).filter(|answer| !answer.is_empty()))
        };
        timeout(PATIENCE, answer).await?
    }
}

struct Desk;

/// Asks the service for the member's name, which becomes the session.
fn authenticate(request: &Request<'_>) -> Upgrade<String> {
    let rates = request.dependency::<Rates>().clone();
    let question = format!("member {}", one_line(request.query("token").unwrap_or_default()));
    Upgrade::later(async move {
        match rates.ask(question).await {
            Ok(Some(name)) => Ok(Accept::new(name)),
            Ok(None) => Err(Response::new(401)),
            Err(_) => Err(Response::new(503)),
        }
    })
}

impl Handler for Desk {
    type Session = String;

    fn on_connect(&self, ws: &mut WebSocket<'_, String>) -> Reply<'static> {
        format!("Good day, {}. Which currency?", ws.session()).into()
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, String>, message: Message<'m>) -> Reply<'m> {
        let rates = ws.dependency::<Rates>().clone();
        let currency = one_line(message.as_text().unwrap_or_default());
        Reply::later(async move {
            match rates.ask(format!("rate {currency}")).await {
                Ok(Some(rate)) => format!("{currency} {rate}"),
                Ok(None) => format!("there is no rate for {currency}"),
                Err(error) => format!("no answer: {error}"),
            }
        })
    }
}

/// What a client sends must not become two questions.
fn one_line(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(32).collect()
}

/// The service: each connection asks one question, in a line, and gets an answer in a line.
async fn serve_rates(listener: TcpListener) -> io::Result<()> {
    loop {
        let (socket, _) = listener.accept().await?;
        tokio::spawn(timeout(PATIENCE, async move {
            let mut socket = BufReader::new(socket);
            let mut question = String::new();
            socket.read_line(&mut question).await?;
            // A service thinks.
            sleep(Duration::from_millis(20)).await;
            let answer = match question.trim().split_once(' ') {
                Some(("member", "open-sesame")) => "Alice",
                Some(("rate", "EUR")) => "1.00",
                Some(("rate", "CHF")) => "0.94",
                Some(("rate", "USD")) => "1.09",
                _ => "",
            };
            socket.write_all(format!("{answer}\n").as_bytes()).await
        }));
    }
}

/// Starts the service in the runtime; the client finds both.
pub(crate) fn start_service(runtime: &Runtime) -> io::Result<Rates> {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let service = listener.local_addr()?;
    runtime.spawn(serve_rates(listener));
    Ok(Rates { tokio: runtime.handle().clone(), service })
}

/// Tells everybody, by a timer of tokio's, until the server shuts down.
pub(crate) async fn tell_time(hub: Hub, period: Duration) {
    let (opened, mut clock) = (Instant::now(), interval(period));
    loop {
        let now = clock.tick().await;
        let news = format!("open for {} seconds", (now - opened).as_secs());
        match hub.broadcast_async("/desk", news).await {
            // It need not be told to all: it comes again.
            Ok(_) | Err(SendError::Overloaded) => {}
            Err(_) => return,
        }
    }
}

pub(crate) fn app(rates: Rates) -> ServerBuilder {
    let tokio = rates.tokio.clone();
    Server::builder()
        .on_shard_thread(move |shard| {
            let _context = tokio.enter();
            shard.run()
        })
        .dependency(rates)
        .requires::<Rates>()
        .websocket("/desk", Endpoint::with_upgrade(Desk, authenticate))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    // Both run side by side: tokio's threads drive tokio's sockets, the shards drive theirs.
    let runtime = Runtime::new()?;
    let server = app(start_service(&runtime)?).bind(address)?;
    runtime.spawn(tell_time(server.hub(), Duration::from_secs(10)));
    println!("ws://{}/desk?token=open-sesame", server.local_addr());
    server.run()?;
    Ok(())
}
