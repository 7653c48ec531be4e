//! Chat rooms. The path names the room, the query whoever comes in; a room is a topic, and exists
//! while somebody is in it.
//!
//! All guests see a line after every line that was accepted before it was said. Two lines that are
//! said at the same moment have no order: guests on different shards may see them differently. An
//! application that numbers its lines does so, and publishes, while it holds a lock; then all
//! guests see the numbers in their order.
//!
//! ```text
//! cargo run --release --example rooms -- [ADDRESS]
//! ```

#![allow(clippy::print_stdout, reason = "it tells where it serves")]

use std::str::FromStr;
use std::sync::Arc;

use peregrine::{
    Close, Endpoint, Handler, Message, Reply, SendError, Server, ServerBuilder, WebSocket,
};

struct Rooms;

/// Who sits at a connection, and in which room.
#[derive(Default)]
struct Guest {
    name: String,
    topic: Arc<str>,
}

type Seat<'w> = WebSocket<'w, Guest>;

impl Handler for Rooms {
    type Session = Guest;

    fn on_connect(&self, ws: &mut Seat<'_>) -> Reply<'static> {
        let room = ws.param("room").unwrap_or_default().to_owned();
        let topic: Arc<str> = format!("room/{room}").into();
        let Name(name) = ws.query_as("name").unwrap_or_default();
        if let Err(error) = ws.subscribe(&topic) {
            ws.close();
            return error.to_string().into();
        }
        *ws.session_mut() = Guest { name: name.clone(), topic: Arc::clone(&topic) };
        let count = ws.subscriber_count(&topic);
        let own = ws.id();
        report(ws.publish_except(&topic, own, format!("* {name} joined, {count} are here")));
        format!("* welcome to {room}, {name}, {count} are here").into()
    }

    fn on_message<'m>(&self, ws: &mut Seat<'_>, message: Message<'m>) -> Reply<'m> {
        let Some(text) = message.as_text() else { return "* only text is understood here".into() };
        let Guest { name, topic } = ws.session();
        let (line, topic) = (format!("{name}: {text}"), Arc::clone(topic));
        match ws.publish(&topic, line) {
            Ok(()) => Reply::none(),
            Err(error) => format!("* not sent: {error}").into(),
        }
    }

    fn on_close(&self, ws: &mut Seat<'_>, _close: &Close) -> Reply<'static> {
        let Guest { name, topic } = std::mem::take(ws.session_mut());
        // This connection has left the topic already, and is not counted.
        let count = ws.subscriber_count(&topic);
        report(ws.publish(&topic, format!("* {name} left, {count} are here")));
        Reply::none()
    }
}

/// A join or a leave that was not told costs nobody a message.
fn report(told: Result<(), SendError>) {
    match told {
        Ok(()) | Err(SendError::ShuttingDown) => {}
        Err(error) => eprintln!("a room was not told who came or went: {error}"),
    }
}

/// A name that disturbs nobody: short, and on one line. What is none is refused at the door.
#[derive(Default)]
struct Name(String);

impl FromStr for Name {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let is_name = (1..=24).contains(&name.chars().count()) && !name.contains(char::is_control);
        if is_name { Ok(Self(name.to_owned())) } else { Err(()) }
    }
}

pub(crate) fn app() -> ServerBuilder {
    let rooms = Endpoint::new(Rooms)
        .required_query::<Name>("name")
        .adjust_limits(|limits| limits.max_message_bytes = 4 << 10);
    Server::builder().websocket("/rooms/{room}", rooms)
}

fn main() -> Result<(), peregrine::Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let server = app().bind(address)?;
    println!("ws://{}/rooms/lobby?name=alice", server.local_addr());
    server.run()
}
