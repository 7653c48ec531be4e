//! A key-value database over WebSockets: requests and answers in JSON, kept by redb.
//!
//! ```text
//! cargo run --release --features serde --example database -- [ADDRESS] [FILE]
//! ```
//!
//! `{"id":1,"op":"put","key":"a","value":"b"}` is answered by `{"id":1}`, `{"id":2,"op":"get",..}`
//! by `{"id":2,"value":"b"}`, what went wrong by `{"id":3,"error":".."}`. The answers of one client
//! come in the order of its requests; for the others nobody waits.

#![allow(clippy::print_stdout, reason = "it tells where it serves")]

use std::path::Path;
use std::sync::Arc;

use peregrine::{Handler, Json, Message, Reply, Server, ServerBuilder, WebSocket};
use redb::{Database, ReadableDatabase, TableDefinition, TableError};
use serde::{Deserialize, Serialize};

const TABLE: TableDefinition<'_, &str, &str> = TableDefinition::new("values");

#[derive(Deserialize)]
struct Request {
    id: u64,
    #[serde(flatten)]
    command: Command,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Command {
    Get { key: String },
    Put { key: String, value: String },
    Delete { key: String },
}

#[derive(Default, Serialize)]
struct Answer {
    id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The database. Its calls block: a `put` until the disk has it.
#[derive(Clone)]
pub(crate) struct Store(Arc<Database>);

impl Store {
    pub(crate) fn open(file: &Path) -> Result<Self, redb::Error> {
        Ok(Self(Arc::new(Database::create(file)?)))
    }

    fn obey(&self, command: Command) -> Result<Option<String>, redb::Error> {
        match command {
            Command::Get { key } => match self.0.begin_read()?.open_table(TABLE) {
                Ok(table) => Ok(table.get(&*key)?.map(|value| value.value().to_owned())),
                // Nothing was ever put.
                Err(TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            },
            Command::Put { key, value } => {
                let transaction = self.0.begin_write()?;
                transaction.open_table(TABLE)?.insert(&*key, &*value)?;
                transaction.commit()?;
                Ok(None)
            }
            Command::Delete { key } => {
                let transaction = self.0.begin_write()?;
                transaction.open_table(TABLE)?.remove(&*key)?;
                transaction.commit()?;
                Ok(None)
            }
        }
    }
}

struct Requests;

impl Handler for Requests {
    type Session = ();

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        let Request { id, command } = match message.json() {
            Ok(request) => request,
            Err(error) => {
                return Reply::json(&Answer {
                    error: Some(error.to_string()),
                    ..Answer::default()
                });
            }
        };
        let store = ws.dependency::<Store>().clone();
        Reply::offload(move || {
            let outcome = store.obey(command);
            let error = outcome.as_ref().err().map(ToString::to_string);
            Json(Answer { id, value: outcome.ok().flatten(), error })
        })
    }
}

pub(crate) fn app(store: Store) -> ServerBuilder {
    Server::builder().dependency(store).requires::<Store>().websocket("/database", Requests)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let file = arguments.next().unwrap_or_else(|| "values.redb".to_owned());
    let server = app(Store::open(Path::new(&file))?).bind(address)?;
    println!("ws://{}/database, kept in {file}", server.local_addr());
    server.run()?;
    Ok(())
}
