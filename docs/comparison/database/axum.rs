use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::any;
use redb::{Database, ReadableDatabase, TableDefinition, TableError};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

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

#[derive(Clone)]
struct Store(Arc<Database>);

impl Store {
    fn open(file: &Path) -> Result<Self, redb::Error> {
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

async fn upgrade(upgrade: WebSocketUpgrade, State(store): State<Store>) -> Response {
    upgrade.max_message_size(1 << 20).on_upgrade(|socket| serve(socket, store))
}

async fn serve(mut socket: WebSocket, store: Store) {
    while let Some(Ok(message)) = socket.recv().await {
        if !matches!(message, Message::Text(_) | Message::Binary(_)) {
            continue;
        }
        let answer = match serde_json::from_slice(&message.into_data()) {
            Ok(Request { id, command }) => {
                let store = store.clone();
                let Ok(outcome) = spawn_blocking(move || store.obey(command)).await else { return };
                let error = outcome.as_ref().err().map(ToString::to_string);
                Answer { id, value: outcome.ok().flatten(), error }
            }
            Err(error) => Answer { error: Some(error.to_string()), ..Answer::default() },
        };
        let Ok(answer) = serde_json::to_string(&answer) else { return };
        if socket.send(Message::text(answer)).await.is_err() {
            return;
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let file = arguments.next().unwrap_or_else(|| "values.redb".to_owned());
    let store = Store::open(Path::new(&file))?;
    let app = Router::new().route("/database", any(upgrade)).with_state(store);
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("ws://{}/database, kept in {file}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
