//! Echoes every message. Run it, then connect to `ws://127.0.0.1:8080/echo`.
//!
//! ```text
//! cargo run --release --example echo -- [ADDRESS] [SHARDS]
//! ```

use peregrine::{Handler, Message, Reply, Server, WebSocket};

struct Echo;

impl Handler for Echo {
    type Session = ();

    fn on_message<'m>(&self, _ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        message.into()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let shard_count = arguments.next().map_or(Ok(1), |count| count.parse())?;
    Server::builder().shards(shard_count).websocket("/echo", Echo).bind(address)?.run()?;
    Ok(())
}
