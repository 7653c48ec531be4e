//! The WebSocket pages of Robyn's documentation, snippet by snippet, in Rust.
//!
//! ```text
//! cargo run --example seeds -- [ADDRESS]
//! ```

#![allow(clippy::print_stdout, reason = "it tells what to try")]

use peregrine::{
    Callbacks, Close, Handler, Message, Reply, Router, Server, ServerBuilder, WebSocket,
};

/// `WebSocket(app, "/web_socket")` with `@websocket.on("connect")`, `("message")`, `("close")`:
/// what a handler returns is sent to the client.
struct FirstSteps;

impl Handler for FirstSteps {
    type Session = ();

    // @websocket.on("connect")
    fn on_connect(&self, _ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        "Connected to ws".into()
    }

    // @websocket.on("message")
    fn on_message<'m>(&self, _ws: &mut WebSocket<'_, ()>, _msg: Message<'m>) -> Reply<'m> {
        "Hello world, from ws".into()
    }

    // @websocket.on("close")
    fn on_close(&self, _ws: &mut WebSocket<'_, ()>, _close: &Close) -> Reply<'static> {
        "Goodbye world, from ws".into()
    }
}

/// `ws.id`, and what belongs to one connection: no dictionary of states by id is needed, every
/// connection has its own `Session`.
struct Stateful;

impl Handler for Stateful {
    type Session = u32;

    fn on_connect(&self, ws: &mut WebSocket<'_, u32>) -> Reply<'static> {
        format!("Your id is {}", ws.id()).into()
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, u32>, _msg: Message<'m>) -> Reply<'m> {
        let state = *ws.session();
        *ws.session_mut() = (state + 1) % 3;
        match state {
            0 => "Whaaat??".into(),
            1 => "Whooo??".into(),
            _ => "*chika* *chika* Slim Shady.".into(),
        }
    }
}

/// `ws.sync_send_to(id, "..")`: to oneself, or to anybody by id.
struct SendTo;

impl Handler for SendTo {
    type Session = ();

    fn on_connect(&self, ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        ws.id().to_string().into()
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, msg: Message<'m>) -> Reply<'m> {
        let text = msg.as_text().unwrap_or_default();
        let (id, text) = match text.split_once(' ').map(|(id, text)| (id.parse(), text)) {
            Some((Ok(id), text)) => (id, text),
            _ => (ws.id(), "This is a message to self"),
        };
        match ws.send_to(id, text) {
            Ok(()) => Reply::none(),
            Err(error) => format!("Not sent: {error}").into(),
        }
    }
}

/// `await ws.async_send_to(id, "..")`: goes on when the kernel has taken the message, or with the
/// reason why the client did not get it.
struct AsyncSendTo;

impl Handler for AsyncSendTo {
    type Session = ();

    fn on_connect(&self, ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        ws.id().to_string().into()
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, msg: Message<'m>) -> Reply<'m> {
        let id = msg.as_text().and_then(|text| text.parse().ok()).unwrap_or(ws.id());
        let delivery = ws.send_to_async(id, "This is a message to you");
        Reply::later(async {
            match delivery.await {
                Ok(()) => "Sent".to_owned(),
                Err(error) => format!("Not sent: {error}"),
            }
        })
    }
}

/// `ws.sync_broadcast("..")`: to all clients of this endpoint, on all cores.
struct Broadcast;

impl Handler for Broadcast {
    type Session = ();

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, msg: Message<'m>) -> Reply<'m> {
        match ws.broadcast(msg) {
            Ok(()) => "".into(),
            Err(error) => format!("Not sent: {error}").into(),
        }
    }
}

/// `await ws.async_broadcast("..")`: goes on when it is known whom the message reached.
struct AsyncBroadcast;

impl Handler for AsyncBroadcast {
    type Session = ();

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, msg: Message<'m>) -> Reply<'m> {
        let broadcast = ws.broadcast_async(msg);
        Reply::later(async {
            match broadcast.await {
                Ok(report) => format!("It reached {}", report.reached_count),
                Err(error) => format!("Not sent: {error}"),
            }
        })
    }
}

/// `ws.query_params.get("name")`: who may broadcast.
struct QueryParams;

impl Handler for QueryParams {
    type Session = ();

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, _msg: Message<'m>) -> Reply<'m> {
        let name = ws.query("name");
        if name == Some("gary") && ws.query("desg") == Some("professor") {
            return match ws.broadcast("Gary authorized to broadcast") {
                Ok(()) => Reply::none(),
                Err(error) => format!("Not sent: {error}").into(),
            };
        }
        format!("{} is not authorized", name.unwrap_or("Nobody")).into()
    }
}

/// `ws.close()`, and then a last message.
struct Closing;

impl Handler for Closing {
    type Session = ();

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, msg: Message<'m>) -> Reply<'m> {
        if msg.as_text() == Some("disconnect") {
            ws.close();
            return "Closing connection".into();
        }
        "Message received".into()
    }
}

/// `async def` handlers, and those that block: this connection's next message waits for the answer,
/// other connections do not.
struct AsyncHandlers;

/// What an `async def` handler does; for tokio's timers and sockets see
/// `ServerBuilder::on_shard_thread`.
async fn answer(text: String) -> String {
    format!("You said {text}")
}

impl Handler for AsyncHandlers {
    type Session = ();

    fn on_connect(&self, _ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        Reply::later(async { "Connected to ws" })
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, msg: Message<'m>) -> Reply<'m> {
        match msg.as_text().unwrap_or_default() {
            "disconnect" => {
                ws.close();
                Reply::later(async { "Closing connection" })
            }
            "count" => Reply::offload(|| (1..=1_000_000_u64).sum::<u64>().to_string()),
            text => Reply::later(answer(text.to_owned())),
        }
    }

    fn on_close(&self, _ws: &mut WebSocket<'_, ()>, _close: &Close) -> Reply<'static> {
        Reply::later(async { "Goodbye world, from ws" })
    }
}

/// `app.inject_global(..)`, `app.inject(..)`: found by type, so each has one of its own.
struct GlobalDependency(&'static str);
struct RouterDependency(&'static str);

/// `def message(ws, msg, global_dependencies, router_dependencies)`.
struct Injected;

impl Handler for Injected {
    type Session = ();

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, _msg: Message<'m>) -> Reply<'m> {
        let global = ws.dependency::<GlobalDependency>().0;
        let router = ws.find_dependency::<RouterDependency>();
        format!("{global}, {}", router.map_or("no router's", |router| router.0)).into()
    }
}

/// `SubRouter(__name__, prefix="/frontend")`: a part of the app, which may live in a module of its
/// own. What it needs from outside it says: without a `GlobalDependency` the server does not start.
fn frontend() -> Router {
    Router::new()
        .requires::<GlobalDependency>()
        .dependency(RouterDependency("ROUTER DEPENDENCY"))
        .websocket("/web_socket", FirstSteps)
        .websocket("/dependencies", Injected)
        .get("/", "A view of the sub-router\n")
}

/// The app: several endpoints, each with its own handlers.
pub(crate) fn app() -> ServerBuilder {
    // Handlers that take only what they name, without a type of their own.
    let closures = Callbacks::<()>::new()
        .on_connect(|_ws| "Connected to ws".into())
        .on_message(|ws, msg| format!("{} said {} bytes", ws.id(), msg.len()).into())
        .on_close(|_ws, close| format!("Goodbye, {close}").into());

    Server::builder()
        .websocket("/web_socket", FirstSteps)
        .websocket("/state", Stateful)
        .websocket("/send_to", SendTo)
        .websocket("/async_send_to", AsyncSendTo)
        .websocket("/broadcast", Broadcast)
        .websocket("/async_broadcast", AsyncBroadcast)
        .websocket("/query_params", QueryParams)
        .websocket("/close", Closing)
        .websocket("/async", AsyncHandlers)
        .websocket("/closures", closures)
        .global(GlobalDependency("GLOBAL DEPENDENCY"))
        .websocket("/dependencies", Injected)
        .mount("/frontend", frontend())
}

const WHAT_TO_TRY: &str = r#"
/web_socket             connect, say anything, close: three fixed answers
/state                  your id, then an answer that depends on the state of your connection
/send_to                "ID TEXT" sends to that id, anything else to yourself
/async_send_to          "ID" sends to that id, anything else to yourself, and tells when it is sent
/broadcast              all clients of this endpoint get what you say
/async_broadcast        the same, and you are told how many got it
/query_params           ?name=gary&desg=professor may broadcast
/close                  say "disconnect"
/async                  answers that come later; say "count" or "disconnect", too
/closures               the same as the first, made of closures
/dependencies           what was given to the whole server
/frontend/dependencies  and to a sub-router; /frontend/web_socket is the first once more

With Python's websockets: python3 -m websockets ws://ADDRESS/web_socket
In a browser's console:   ws = new WebSocket("ws://ADDRESS/web_socket");
                          ws.onmessage = event => console.log(event.data); ws.send("hi")
"#;

fn main() -> Result<(), peregrine::Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let server = app().bind(address)?;
    let address = server.local_addr().to_string();
    println!("ws://{address}\n{}", WHAT_TO_TRY.replace("ADDRESS", &address));
    server.run()
}
