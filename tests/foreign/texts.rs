//! Every public function that takes a text, with texts that nobody has thought of: the answer may
//! be an error, and is never a panic.

use peregrine::{
    Accept, AsMessage, Callbacks, ConnectionId, Endpoint, Hub, IntoUpgrade, Message, Query, Reply,
    Request, Response, Router, Server, ServerBuilder, Upgrade, WebSocket,
};

use super::{each, start};
use crate::common::Client;

/// Texts that are something else than what is expected, wherever one is expected.
fn texts() -> Vec<String> {
    let short = [
        "|/| |\0|\r\n|a\r\nb: c|\t|\u{e9}|\u{85}|\u{10ffff}|%|%zz|%0|%0d%0a|{|}|{}|{*}|{a}{b}|:a|*",
        "<a>|[|[]|[::1|[::1]:|://|a://|::|:99999|null|//|/..|/{|/}|/{}|/{*}|/{*a}/b|/{a}",
        "/{a}}|/{{{a}|/\u{e9}{a}|/%|/%e9|/?|/#|/\n|/:a|/*|*/8",
        "1/|::/129|\"|\\|,|;|=|a=b; c|a, b|a/b|\u{202e}",
    ];
    let long = ["a", "\u{e9}", "/", "%", "{", "/{a}", "a,", "\0"].map(|text| text.repeat(2000));
    let short = short.iter().flat_map(|texts| texts.split('|')).map(str::to_owned);
    short.chain(long).collect()
}

fn greeter() -> Callbacks<()> {
    Callbacks::new().on_connect(|_| "hello".into())
}

#[test]
fn whatever_a_server_is_built_of_is_served_or_refused() {
    let accept = |builder: ServerBuilder| {
        // Some of them can be served.
        if let Err(error) = builder.bind("127.0.0.1:0") {
            assert!(!error.to_string().is_empty());
        }
    };
    for text in texts() {
        let given = || text.clone();
        accept(Server::builder().websocket(given(), greeter()));
        accept(Server::builder().get(given(), given()));
        accept(Server::builder().readiness(given()));
        let router = Router::new().get("/", "a page").get(given(), "").allow_origin(given());
        accept(Server::builder().mount(given(), router));
        let router = Router::new().get("/{a}/b/{*c}", "a page");
        accept(Server::builder().mount(given(), router));
        let endpoint = Endpoint::new(greeter()).required_query::<u8>(given());
        accept(Server::builder().websocket("/{a}", endpoint.required_param::<u8>(given())));
        let endpoint = Endpoint::new(greeter()).allow_origin(given());
        accept(Server::builder().websocket("/", endpoint));
        accept(Server::builder().trust_proxies([given()]).allow_origin(given()));
        assert!(Server::builder().bind(given()).is_err(), "no address: {text:.100?}");
    }
}

/// Asks a request for everything by names of any kind, and adds texts of any kind to the answer.
fn decide(request: &Request<'_>) -> Accept<()> {
    let mut added_count = 0;
    for text in texts() {
        let _ = (request.query(&text), request.query_as::<u8>(&text), request.header(&text));
        let _ = (request.param(&text), request.param_as::<u8>(&text), request.cookie(&text));
        let response = Response::text(text.clone()).with_text(text.clone()).body(text.clone());
        let both = response.header(text.clone(), text.clone());
        assert!(both.is_err() || text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:.100?}");
        let _ = (Response::html(text.clone()), Response::json(text.clone()));
        let accept = Accept::new(()).subprotocol(&text).subprotocols([&*text, "v1"]);
        let added = accept.header("X-Text", text.clone());
        added_count += usize::from(added.is_ok());
        drop((added.into_upgrade(), Upgrade::<()>::reject(text.clone())));
    }
    let name = format!("none of them: {added_count}\r\n");
    Accept::new(()).subprotocol(&name).subprotocols([&*name, "", "v1"])
}

/// Does with a text all that can be done with one.
fn use_up(ws: &WebSocket<'_, ()>, hub: &Hub, text: &str) {
    let id = ws.id();
    let _ = (ws.query(text), ws.query_as::<u8>(text), ws.param(text), ws.param_as::<u8>(text));
    let _ = (ws.subscribe(text), ws.publish(text, text), ws.publish_except(text, id, text));
    drop(ws.publish_async(text, text));
    let _ = (ws.subscriber_count(text), ws.unsubscribe(text));
    let _ = (hub.broadcast(text, text), hub.broadcast_except(text, id, text));
    let _ = (hub.subscribe(id, text), hub.publish(text, text), hub.publish_except(text, id, text));
    drop((hub.broadcast_async(text, text), hub.publish_async(text, text)));
    let _ = (hub.unsubscribe(id, text), hub.subscriber_count(text));
    let _ = (text.parse::<ConnectionId>(), Reply::text(text.to_owned()), text.as_message());
    let _ = (Query::new(text).get(text).is_some(), Query::new("a").get_all(text).count());
    let _ = Message::from(text).as_text();
}

#[test]
fn whatever_a_handler_says_is_taken_or_refused() {
    each(|shard_count| {
        let handler = Callbacks::with_upgrade(decide)
            .on_connect(|ws| {
                let hub = ws.hub();
                texts().iter().for_each(|text| use_up(ws, &hub, text));
                "all were used".into()
            })
            .on_message(|ws, message| {
                // The number of one of them, as a reason to close.
                let at: usize = message.as_text().and_then(|at| at.parse().ok()).unwrap_or(0);
                ws.close_with(4000, &texts()[at]);
                ().into()
            });
        let server = start(shard_count, |builder| builder.websocket("/{a}", handler));
        for at in 0..texts().len() {
            let mut client = Client::connect(server.local_addr(), "/x?a=b");
            client.send(at.to_string());
            // What was published through the hub comes before or after the answer.
            let mut is_answered = false;
            let close = loop {
                match client.read() {
                    tungstenite::Message::Close(close) => break close.expect("a code"),
                    message => {
                        is_answered |= message == tungstenite::Message::text("all were used")
                    }
                }
            };
            assert!(is_answered && u16::from(close.code) == 4000, "{at}: {close:?}");
        }
    });
}
