//! A ticker of market data. A thread publishes the trades of each symbol to that symbol's topic; a
//! client subscribes to the symbols that it names. Who reads too slowly misses old ticks, gets the
//! newest, and costs the others nothing.
//!
//! ```text
//! cargo run --release --example ticker -- [ADDRESS] [ROUNDS_PER_SECOND]
//! ```
//!
//! A tick is a line such as `ACME 17 101.25`: the symbol, the number of the tick, the price. From a
//! gap in the numbers a client knows what it has missed.

#![allow(clippy::print_stdout, reason = "it tells where it serves")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use peregrine::{
    Endpoint, Handler, Hub, Message, OverflowPolicy, Reply, SendError, Server, ServerBuilder,
    WebSocket,
};

pub(crate) const SYMBOLS: [&str; 8] =
    ["ACME", "BOLT", "CORE", "DUNE", "ECHO", "FLUX", "GALE", "HIVE"];

/// The last trade of every symbol, for those who come in later.
pub(crate) struct Market {
    quotes: [Mutex<Quote>; SYMBOLS.len()],
    /// The state of the chance that moves the prices.
    chance: AtomicU64,
}

#[derive(Clone, Copy)]
struct Quote {
    number: u64,
    price_cents: u64,
}

impl Default for Market {
    fn default() -> Self {
        let quotes = SYMBOLS.map(|_| Mutex::new(Quote { number: 0, price_cents: 10_000 }));
        Self { quotes, chance: AtomicU64::new(1) }
    }
}

impl Market {
    /// The last tick of a symbol; `None` if there is no such symbol.
    fn last(&self, symbol: &str) -> Option<String> {
        let at = SYMBOLS.iter().position(|known| *known == symbol)?;
        Some(self.with(at, |quote| tick(symbol, *quote)))
    }

    /// One trade of every symbol. Not everybody need be told: if the way to the shards is full, the
    /// next round tells a newer price.
    ///
    /// # Errors
    /// `ShuttingDown`.
    pub(crate) fn trade(&self, hub: &Hub) -> Result<(), SendError> {
        for (at, symbol) in SYMBOLS.into_iter().enumerate() {
            let step = self.chance();
            let tick = self.with(at, |quote| {
                quote.number += 1;
                quote.price_cents = (quote.price_cents + step % 21).saturating_sub(10).max(1);
                tick(symbol, *quote)
            });
            match hub.publish(symbol, tick) {
                Ok(()) | Err(SendError::Overloaded) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn with<R>(&self, at: usize, visit: impl FnOnce(&mut Quote) -> R) -> R {
        visit(&mut self.quotes[at].lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Xorshift: good enough for a market.
    fn chance(&self) -> u64 {
        let mut x = self.chance.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.chance.store(x, Ordering::Relaxed);
        x
    }
}

fn tick(symbol: &str, Quote { number, price_cents }: Quote) -> String {
    format!("{symbol} {number} {}.{:02}", price_cents / 100, price_cents % 100)
}

struct Ticker;

impl Handler for Ticker {
    type Session = ();

    /// `/ticks?symbol=ACME&symbol=BOLT` subscribes at once.
    fn on_connect(&self, ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        for symbol in ws.query_params().get_all("symbol") {
            if let Err(problem) = subscribe(ws, symbol) {
                return problem.into();
            }
        }
        Reply::none()
    }

    /// `+ACME` subscribes, `-ACME` unsubscribes.
    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        let text = message.as_text().unwrap_or_default();
        if let Some(symbol) = text.strip_prefix('-') {
            ws.unsubscribe(symbol);
            return Reply::none();
        }
        let outcome = text.strip_prefix('+').ok_or("say +SYMBOL or -SYMBOL".to_owned());
        outcome.and_then(|symbol| subscribe(ws, symbol)).err().into()
    }
}

/// Subscribes, and sends the last tick: until the next trade there is no other. It may come once
/// more, if it was on its way already.
fn subscribe(ws: &WebSocket<'_, ()>, symbol: &str) -> Result<(), String> {
    let last = ws.dependency::<Arc<Market>>().last(symbol);
    let last = last.ok_or_else(|| format!("there is no symbol {symbol:?}"))?;
    ws.subscribe(symbol).and_then(|()| ws.send(last)).map_err(|error| error.to_string())
}

pub(crate) fn app(market: Arc<Market>) -> ServerBuilder {
    let ticker = Endpoint::new(Ticker).requires::<Arc<Market>>().adjust_limits(|limits| {
        // What waits for one client: some hundred ticks, of which the oldest give way.
        limits.overflow = OverflowPolicy::DropOldest;
        limits.max_outbox_bytes = 16 << 10;
        limits.outbox_high_water_bytes = 8 << 10;
        limits.outbox_low_water_bytes = 4 << 10;
        limits.max_message_bytes = 64;
    });
    Server::builder().dependency(market).websocket("/ticks", ticker)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let rounds_per_second: u32 = arguments.next().map_or(Ok(10), |count| count.parse())?;
    let market = Arc::new(Market::default());
    let server = app(Arc::clone(&market)).bind(address)?;
    println!("ws://{}/ticks?symbol={}", server.local_addr(), SYMBOLS.join("&symbol="));

    let hub = server.hub();
    let pause = Duration::from_secs(1) / rounds_per_second.max(1);
    thread::spawn(move || {
        while market.trade(&hub).is_ok() {
            thread::sleep(pause);
        }
    });
    server.run()?;
    Ok(())
}
