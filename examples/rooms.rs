//! Chat rooms. The path names the room, and the query names the guest. A room is a topic: it exists
//! while it has subscribers.
//!
//! If a line was accepted before another line was sent, all guests see it first. Two lines that are
//! sent at the same moment have no order: guests on different shards may see them differently. An
//! application that needs one order takes a lock, numbers a line and publishes it under the lock.
//! Then all guests see the numbers in ascending order.
//!
//! ```text
//! cargo run --release --example rooms -- [ADDRESS]
//! ```

#![allow(clippy::print_stdout, reason = "it prints its address")]

use std::str::FromStr;

use peregrine::{
    Accept, Close, Endpoint, Handler, Message, ParamError, Reply, Request, SendError, Server,
    ServerBuilder, WebSocket,
};

struct Rooms;

/// The session: a guest in a room.
struct Guest {
    name: String,
    topic: String,
}

/// Reads the guest from the request. A request without a name gets status 400.
fn enter(request: &Request<'_>) -> Result<Accept<Guest>, ParamError> {
    let Name(name) = request.query_as("name")?;
    let room = request.param("room").unwrap_or_default();
    Ok(Accept::new(Guest { name, topic: format!("room/{room}") }))
}

impl Handler for Rooms {
    type Session = Guest;

    fn on_connect(&self, ws: &mut WebSocket<'_, Guest>) -> Reply<'static> {
        let Guest { name, topic } = ws.session();
        if let Err(error) = ws.subscribe(topic) {
            ws.close();
            return error.to_string().into();
        }
        let count = ws.subscriber_count(topic);
        report(ws.publish_except(topic, ws.id(), format!("* {name} joined, {count} are here")));
        let room = ws.param("room").unwrap_or_default();
        format!("* welcome to {room}, {name}, {count} are here").into()
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, Guest>, message: Message<'m>) -> Reply<'m> {
        let Some(text) = message.as_text() else { return "* only text is understood here".into() };
        let Guest { name, topic } = ws.session();
        match ws.publish(topic, format!("{name}: {text}")) {
            Ok(()) => Reply::none(),
            Err(error) => format!("* not sent: {error}").into(),
        }
    }

    fn on_close(&self, ws: &mut WebSocket<'_, Guest>, _close: &Close) -> Reply<'static> {
        let Guest { name, topic } = ws.session();
        // This connection has left the topic already, and is not counted.
        let count = ws.subscriber_count(topic);
        report(ws.publish(topic, format!("* {name} left, {count} are here")));
        Reply::none()
    }
}

/// A refused announcement goes to the log only: the guests' own lines are not affected.
fn report(published: Result<(), SendError>) {
    match published {
        Ok(()) | Err(SendError::ShuttingDown) => {}
        Err(error) => eprintln!("the announcement to a room was refused: {error}"),
    }
}

/// A name of 1 to 24 characters on one line.
struct Name(String);

impl FromStr for Name {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let is_name = (1..=24).contains(&name.chars().count()) && !name.contains(char::is_control);
        if is_name { Ok(Self(name.to_owned())) } else { Err(()) }
    }
}

pub(crate) fn app() -> ServerBuilder {
    let rooms = Endpoint::with_upgrade(Rooms, enter)
        .adjust_limits(|limits| limits.max_message_bytes = 4 << 10);
    Server::builder().websocket("/rooms/{room}", rooms)
}

fn main() -> Result<(), peregrine::Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let server = app().bind(address)?;
    println!("ws://{}/rooms/lobby?name=alice", server.local_addr());
    server.run()
}
