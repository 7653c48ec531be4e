use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{env, thread};

use axum::Router;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::any;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

const SYMBOLS: [&str; 8] = ["ACME", "BOLT", "CORE", "DUNE", "ECHO", "FLUX", "GALE", "HIVE"];

/// How many ticks are kept for the slow.
const KEPT_COUNT: usize = 1024;

#[derive(Clone, Copy)]
struct Quote {
    number: u64,
    price_cents: u64,
}

struct Market {
    quotes: [Mutex<Quote>; SYMBOLS.len()],
    ticks: broadcast::Sender<(usize, Utf8Bytes)>,
}

impl Default for Market {
    fn default() -> Self {
        let quotes = SYMBOLS.map(|_| Mutex::new(Quote { number: 0, price_cents: 10_000 }));
        Self { quotes, ticks: broadcast::channel(KEPT_COUNT).0 }
    }
}

impl Market {
    fn last(&self, at: usize) -> Utf8Bytes {
        self.with(at, |quote| tick(at, *quote))
    }

    fn trade(&self, chance: &mut u64) {
        for at in 0..SYMBOLS.len() {
            let step = next(chance);
            let tick = self.with(at, |quote| {
                quote.number += 1;
                quote.price_cents = (quote.price_cents + step % 21).saturating_sub(10).max(1);
                tick(at, *quote)
            });
            let _ = self.ticks.send((at, tick));
        }
    }

    fn with<R>(&self, at: usize, visit: impl FnOnce(&mut Quote) -> R) -> R {
        visit(&mut self.quotes[at].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Xorshift.
fn next(x: &mut u64) -> u64 {
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    *x
}

fn tick(at: usize, Quote { number, price_cents }: Quote) -> Utf8Bytes {
    let (whole, cents) = (price_cents / 100, price_cents % 100);
    format!("{} {number} {whole}.{cents:02}", SYMBOLS[at]).into()
}

fn find(symbol: &str) -> Result<usize, String> {
    let found = SYMBOLS.iter().position(|known| *known == symbol);
    found.ok_or_else(|| format!("there is no symbol {symbol:?}"))
}

async fn upgrade(
    upgrade: WebSocketUpgrade,
    RawQuery(query): RawQuery,
    State(market): State<Arc<Market>>,
) -> Response {
    let upgrade = upgrade.max_message_size(64);
    upgrade.on_upgrade(move |socket| async move {
        let query = query.unwrap_or_default();
        let pairs = query.split('&').filter_map(|pair| pair.strip_prefix("symbol="));
        let wanted: Vec<String> = pairs.map(|symbol| format!("+{symbol}")).collect();
        // An error here is the end of the connection.
        let _ = serve(socket, market, wanted).await;
    })
}

/// Does what a client asks for; what is returned answers it.
fn obey(market: &Market, own: &mut HashSet<usize>, text: &str) -> Option<Utf8Bytes> {
    if let Some(symbol) = text.strip_prefix('-') {
        own.remove(&find(symbol).ok()?);
        return None;
    }
    match text.strip_prefix('+').ok_or("say +SYMBOL or -SYMBOL".to_owned()).and_then(find) {
        Ok(at) => {
            own.insert(at);
            Some(market.last(at))
        }
        Err(problem) => Some(problem.into()),
    }
}

async fn serve(
    mut socket: WebSocket,
    market: Arc<Market>,
    wanted: Vec<String>,
) -> Result<(), axum::Error> {
    let mut ticks = market.ticks.subscribe();
    let mut own = HashSet::new();
    for text in wanted {
        if let Some(answer) = obey(&market, &mut own, &text) {
            socket.send(Message::Text(answer)).await?;
        }
    }
    loop {
        tokio::select! {
            tick = ticks.recv() => match tick {
                Ok((at, tick)) if own.contains(&at) => socket.send(Message::Text(tick)).await?,
                // Too slow: the oldest are gone.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    if let Some(answer) = obey(&market, &mut own, &text) {
                        socket.send(Message::Text(answer)).await?;
                    }
                }
                Some(message) => drop(message?),
                None => return Ok(()),
            },
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let rounds_per_second: u32 = arguments.next().map_or(Ok(10), |count| count.parse())?;
    let market = Arc::new(Market::default());
    let app = Router::new().route("/ticks", any(upgrade)).with_state(Arc::clone(&market));
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("ws://{}/ticks?symbol={}", listener.local_addr()?, SYMBOLS.join("&symbol="));

    let pause = Duration::from_secs(1) / rounds_per_second.max(1);
    thread::spawn(move || {
        let mut chance = 1;
        loop {
            market.trade(&mut chance);
            thread::sleep(pause);
        }
    });
    axum::serve(listener, app).await?;
    Ok(())
}
