//! An echo for members. Whoever connects shows a token, which is looked up before the upgrade is
//! granted; a stranger gets 401. The session knows the member.
//!
//! ```text
//! cargo run --release --example auth_echo -- [ADDRESS] [MEMBERS_FILE]
//! ```

#![allow(clippy::print_stdout, reason = "it tells where it serves")]

use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::sync::Arc;
use std::{env, fs};

use peregrine::{
    Accept, Endpoint, Handler, HeaderError, Message, Reply, Request, Response, Server,
    ServerBuilder, Upgrade, WebSocket,
};

/// Who may come in: a file of lines `TOKEN NAME`, read at every upgrade, so that whoever is struck
/// off it stays out from then on.
pub(crate) struct Members {
    pub(crate) file: PathBuf,
}

impl Members {
    /// The name of the member with this token. Blocks.
    fn find(&self, token: &str) -> io::Result<Option<String>> {
        for line in BufReader::new(fs::File::open(&self.file)?).lines() {
            match line?.split_once(' ') {
                Some((known, name)) if known == token => return Ok(Some(name.to_owned())),
                _ => {}
            }
        }
        Ok(None)
    }
}

struct Echo;

struct Member {
    name: String,
}

impl Handler for Echo {
    type Session = Member;

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, Member>, message: Message<'m>) -> Reply<'m> {
        match message {
            Message::Text(text) => format!("{}: {text}", ws.session().name).into(),
            Message::Binary(_) => message.into(),
        }
    }
}

/// Decides about an upgrade by the token in its request.
fn authenticate(request: &Request<'_>) -> Result<Upgrade<Member>, HeaderError> {
    let unauthorized = Response::new(401).header("WWW-Authenticate", "Bearer")?;
    let bearer = request.header("Authorization").and_then(|value| value.strip_prefix("Bearer "));
    // A browser cannot set headers on a WebSocket, but it sends its cookies.
    let Some(token) = bearer.or_else(|| request.cookie("token")).map(str::to_owned) else {
        return Ok(unauthorized.into());
    };
    let members = Arc::clone(request.dependency::<Arc<Members>>());
    // The look-up blocks, so a thread of the pool does it; the shard serves others meanwhile.
    Ok(Upgrade::offload(move || match members.find(&token) {
        Ok(Some(name)) => Ok(Accept::new(Member { name })),
        Ok(None) => Err(unauthorized),
        Err(_) => Err(Response::new(503)),
    }))
}

pub(crate) fn app(members: Members) -> ServerBuilder {
    let echo = Endpoint::with_upgrade(Echo, authenticate).requires::<Arc<Members>>();
    Server::builder().dependency(Arc::new(members)).websocket("/echo", echo)
}

fn main() -> Result<(), peregrine::Error> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let file = arguments.next().map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/members.txt")),
        PathBuf::from,
    );
    let server = app(Members { file }).bind(address)?;
    println!("ws://{}/echo, for who sends `Authorization: Bearer TOKEN`", server.local_addr());
    server.run()
}
