use std::path::Path;

use actix_web::web::{self, Data, Payload};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, rt};
use actix_ws::{AggregatedMessage, AggregatedMessageStream, Session};
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

struct Store(Database);

impl Store {
    fn open(file: &Path) -> Result<Self, redb::Error> {
        Ok(Self(Database::create(file)?))
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

async fn upgrade(
    request: HttpRequest,
    body: Payload,
    store: Data<Store>,
) -> actix_web::Result<HttpResponse> {
    let (response, session, messages) = actix_ws::handle(&request, body)?;
    let messages = messages.max_frame_size(1 << 20).aggregate_continuations();
    rt::spawn(serve(session, messages.max_continuation_size(1 << 20), store));
    Ok(response)
}

async fn serve(mut session: Session, mut messages: AggregatedMessageStream, store: Data<Store>) {
    while let Some(Ok(message)) = messages.recv().await {
        let request = match message {
            AggregatedMessage::Text(text) => text.into_bytes(),
            AggregatedMessage::Binary(bytes) => bytes,
            AggregatedMessage::Ping(bytes) => {
                let _ = session.pong(&bytes).await;
                continue;
            }
            AggregatedMessage::Pong(_) => continue,
            AggregatedMessage::Close(reason) => {
                let _ = session.close(reason).await;
                return;
            }
        };
        let answer = match serde_json::from_slice(&request) {
            Ok(Request { id, command }) => {
                let store = store.clone();
                let Ok(outcome) = web::block(move || store.obey(command)).await else { return };
                let error = outcome.as_ref().err().map(ToString::to_string);
                Answer { id, value: outcome.ok().flatten(), error }
            }
            Err(error) => Answer { error: Some(error.to_string()), ..Answer::default() },
        };
        let Ok(answer) = serde_json::to_string(&answer) else { return };
        if session.text(answer).await.is_err() {
            return;
        }
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let file = arguments.next().unwrap_or_else(|| "values.redb".to_owned());
    let store = Data::new(Store::open(Path::new(&file))?);
    let app = move || App::new().app_data(store.clone()).route("/database", web::get().to(upgrade));
    let server = HttpServer::new(app).bind(address)?;
    println!("ws://{}/database, kept in {file}", server.addrs()[0]);
    server.run().await?;
    Ok(())
}
