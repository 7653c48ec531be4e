use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::{env, io};

use actix_web::web::{self, Data, Path, Payload, Query};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, rt};
use actix_ws::{AggregatedMessage, AggregatedMessageStream, Closed, Session};
use serde::Deserialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// A room's lines, each with the number of the guest that does not get it, and how many are here.
struct Room {
    lines: broadcast::Sender<(Option<u64>, Arc<str>)>,
    count: usize,
}

#[derive(Default)]
struct Rooms {
    rooms: HashMap<String, Room>,
    next_guest: u64,
}

type Shared = Arc<Mutex<Rooms>>;

#[derive(Deserialize)]
struct Guest {
    name: String,
}

impl Guest {
    fn is_valid(&self) -> bool {
        let length = self.name.chars().count();
        (1..=24).contains(&length) && !self.name.contains(char::is_control)
    }
}

/// Somebody in a room; leaves it when dropped, however the connection ends.
struct Seat {
    rooms: Shared,
    room: String,
    name: String,
    id: u64,
    lines: broadcast::Sender<(Option<u64>, Arc<str>)>,
}

impl Seat {
    fn take(rooms: Shared, room: String, name: String) -> (Self, usize) {
        let mut all = rooms.lock().unwrap_or_else(PoisonError::into_inner);
        all.next_guest += 1;
        let id = all.next_guest;
        let entry = all.rooms.entry(room.clone());
        let entry = entry.or_insert_with(|| Room { lines: broadcast::channel(256).0, count: 0 });
        entry.count += 1;
        let (lines, count) = (entry.lines.clone(), entry.count);
        drop(all);
        (Self { rooms, room, name, id, lines }, count)
    }

    fn say(&self, except: Option<u64>, line: String) {
        let _ = self.lines.send((except, line.into()));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut all = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(room) = all.rooms.get_mut(&self.room) else { return };
        room.count -= 1;
        let count = room.count;
        if count == 0 {
            all.rooms.remove(&self.room);
        }
        drop(all);
        self.say(None, format!("* {} left, {count} are here", self.name));
    }
}

async fn upgrade(
    request: HttpRequest,
    body: Payload,
    room: Path<String>,
    guest: Query<Guest>,
    rooms: Data<Mutex<Rooms>>,
) -> actix_web::Result<HttpResponse> {
    if !guest.is_valid() {
        return Ok(HttpResponse::BadRequest().finish());
    }
    let (response, session, messages) = actix_ws::handle(&request, body)?;
    let messages = messages.max_frame_size(4 << 10).aggregate_continuations();
    let messages = messages.max_continuation_size(4 << 10);
    let (seat, count) = Seat::take(rooms.into_inner(), room.into_inner(), guest.into_inner().name);
    rt::spawn(async move {
        // It fails when the connection has ended.
        let _ = chat(session, messages, seat, count).await;
    });
    Ok(response)
}

async fn chat(
    mut session: Session,
    mut messages: AggregatedMessageStream,
    seat: Seat,
    count: usize,
) -> Result<(), Closed> {
    let mut lines = seat.lines.subscribe();
    let Seat { name, room, id, .. } = &seat;
    seat.say(Some(*id), format!("* {name} joined, {count} are here"));
    session.text(format!("* welcome to {room}, {name}, {count} are here")).await?;
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Ok((except, _)) if except == Some(*id) => {}
                Ok((_, line)) => session.text(line.to_string()).await?,
                // Too slow to hear everything.
                Err(RecvError::Lagged(_) | RecvError::Closed) => return session.close(None).await,
            },
            message = messages.recv() => match message {
                Some(Ok(AggregatedMessage::Text(text))) => {
                    seat.say(None, format!("{name}: {text}"));
                }
                Some(Ok(AggregatedMessage::Binary(_))) => {
                    session.text("* only text is understood here").await?;
                }
                Some(Ok(AggregatedMessage::Ping(bytes))) => session.pong(&bytes).await?,
                Some(Ok(AggregatedMessage::Pong(_))) => {}
                Some(Ok(AggregatedMessage::Close(reason))) => return session.close(reason).await,
                Some(Err(_)) | None => return session.close(None).await,
            },
        }
    }
}

#[actix_web::main]
async fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let rooms = Data::new(Mutex::new(Rooms::default()));
    let app =
        move || App::new().app_data(rooms.clone()).route("/rooms/{room}", web::get().to(upgrade));
    let server = HttpServer::new(app).bind(address)?;
    println!("ws://{}/rooms/lobby?name=alice", server.addrs()[0]);
    server.run().await
}
