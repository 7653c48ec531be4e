use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{env, thread};

use actix_web::web::{self, Data, Payload};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, rt};
use actix_ws::{Closed, Message, MessageStream, Session};
use bytestring::ByteString;
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
    ticks: broadcast::Sender<(usize, ByteString)>,
}

impl Default for Market {
    fn default() -> Self {
        let quotes = SYMBOLS.map(|_| Mutex::new(Quote { number: 0, price_cents: 10_000 }));
        Self { quotes, ticks: broadcast::channel(KEPT_COUNT).0 }
    }
}

impl Market {
    fn last(&self, at: usize) -> ByteString {
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

fn tick(at: usize, Quote { number, price_cents }: Quote) -> ByteString {
    let (whole, cents) = (price_cents / 100, price_cents % 100);
    format!("{} {number} {whole}.{cents:02}", SYMBOLS[at]).into()
}

fn find(symbol: &str) -> Result<usize, String> {
    let found = SYMBOLS.iter().position(|known| *known == symbol);
    found.ok_or_else(|| format!("there is no symbol {symbol:?}"))
}

async fn upgrade(
    request: HttpRequest,
    body: Payload,
    market: Data<Market>,
) -> actix_web::Result<HttpResponse> {
    let (response, session, messages) = actix_ws::handle(&request, body)?;
    let pairs = request.query_string().split('&');
    let pairs = pairs.filter_map(|pair| pair.strip_prefix("symbol="));
    let wanted = pairs.map(|symbol| format!("+{symbol}")).collect();
    rt::spawn(async move {
        // It fails when the connection has ended.
        let _ = serve(session, messages.max_frame_size(64), market, wanted).await;
    });
    Ok(response)
}

/// Does what a client asks for; what is returned answers it.
fn obey(market: &Market, own: &mut HashSet<usize>, text: &str) -> Option<ByteString> {
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
    mut session: Session,
    mut messages: MessageStream,
    market: Data<Market>,
    wanted: Vec<String>,
) -> Result<(), Closed> {
    let mut ticks = market.ticks.subscribe();
    let mut own = HashSet::new();
    for text in wanted {
        if let Some(answer) = obey(&market, &mut own, &text) {
            session.text(answer).await?;
        }
    }
    loop {
        tokio::select! {
            tick = ticks.recv() => match tick {
                Ok((at, tick)) if own.contains(&at) => session.text(tick).await?,
                // Too slow: the oldest are gone.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return session.close(None).await,
            },
            message = messages.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    if let Some(answer) = obey(&market, &mut own, &text) {
                        session.text(answer).await?;
                    }
                }
                Some(Ok(Message::Ping(bytes))) => session.pong(&bytes).await?,
                Some(Ok(Message::Close(reason))) => return session.close(reason).await,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return session.close(None).await,
            },
        }
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let rounds_per_second: u32 = arguments.next().map_or(Ok(10), |count| count.parse())?;
    let market = Data::new(Market::default());
    let app = {
        let market = market.clone();
        move || App::new().app_data(market.clone()).route("/ticks", web::get().to(upgrade))
    };
    let server = HttpServer::new(app).bind(address)?;
    println!("ws://{}/ticks?symbol={}", server.addrs()[0], SYMBOLS.join("&symbol="));

    let pause = Duration::from_secs(1) / rounds_per_second.max(1);
    thread::spawn(move || {
        let mut chance = 1;
        loop {
            market.trade(&mut chance);
            thread::sleep(pause);
        }
    });
    server.run().await?;
    Ok(())
}
