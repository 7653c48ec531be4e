use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::{env, io};

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
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
    upgrade: WebSocketUpgrade,
    Path(room): Path<String>,
    Query(guest): Query<Guest>,
    State(rooms): State<Shared>,
) -> Response {
    if !guest.is_valid() {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let upgrade = upgrade.max_message_size(4 << 10);
    upgrade.on_upgrade(move |socket| chat(socket, rooms, room, guest.name))
}

async fn chat(mut socket: WebSocket, rooms: Shared, room: String, name: String) {
    let (seat, count) = Seat::take(rooms, room, name);
    let mut lines = seat.lines.subscribe();
    let Seat { name, room, id, .. } = &seat;
    seat.say(Some(*id), format!("* {name} joined, {count} are here"));
    let welcome = format!("* welcome to {room}, {name}, {count} are here");
    if socket.send(Message::text(welcome)).await.is_err() {
        return;
    }
    loop {
        let answer = tokio::select! {
            line = lines.recv() => match line {
                Ok((except, _)) if except == Some(*id) => continue,
                Ok((_, line)) => Message::text(&*line),
                // Too slow to hear everything.
                Err(RecvError::Lagged(_) | RecvError::Closed) => return,
            },
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    seat.say(None, format!("{name}: {text}"));
                    continue;
                }
                Some(Ok(Message::Binary(_))) => Message::text("* only text is understood here"),
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return,
            },
        };
        if socket.send(answer).await.is_err() {
            return;
        }
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let app = Router::new().route("/rooms/{room}", any(upgrade)).with_state(Shared::default());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("ws://{}/rooms/lobby?name=alice", listener.local_addr()?);
    axum::serve(listener, app).await
}
