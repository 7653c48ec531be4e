//! tokio-tungstenite: its buffers of 128 KiB are its default and what its documentation recommends
//! under load.

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::{self, Receiver, Sender};
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::streams::{self, AnyMessage};
use super::{CROWD_CAPACITY, LAGGING, MESSAGE_BYTES, Outcome, Plan, TRY_AGAIN_LATER, run_on_tokio};

impl AnyMessage for Message {
    fn is_data(&self) -> bool {
        matches!(self, Self::Text(_) | Self::Binary(_))
    }

    fn lagging() -> Self {
        Self::Close(Some(CloseFrame { code: TRY_AGAIN_LATER.into(), reason: LAGGING.into() }))
    }
}

pub(super) fn serve(plan: &Plan) -> Outcome {
    run_on_tokio(plan, accept)
}

async fn accept(listener: TcpListener) -> Outcome {
    let (crowd, _) = broadcast::channel(CROWD_CAPACITY);
    loop {
        let (stream, _) = listener.accept().await?;
        let crowd = crowd.clone();
        tokio::spawn(async move {
            // Whoever leaves ends its own task only.
            let _ = attend(stream, crowd).await;
        });
    }
}

async fn attend(stream: TcpStream, crowd: Sender<Message>) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES))
        .max_frame_size(Some(MESSAGE_BYTES));
    let mut said = None;
    #[expect(clippy::result_large_err, reason = "tungstenite wants it so")]
    let look = |request: &Request, response| choose(request, response, &crowd, &mut said);
    let socket = accept_hdr_async_with_config(stream, look, Some(config)).await?;
    match said {
        Some(said) => {
            streams::join(socket, crowd, said).await;
            Ok(())
        }
        None => streams::echo(socket).await,
    }
}

#[expect(clippy::result_large_err, reason = "tungstenite wants it so")]
fn choose(
    request: &Request,
    response: Response,
    crowd: &Sender<Message>,
    said: &mut Option<Receiver<Message>>,
) -> Result<Response, ErrorResponse> {
    match request.uri().path() {
        "/echo" => {}
        "/all" => *said = Some(crowd.subscribe()),
        _ => {
            let mut refusal = ErrorResponse::default();
            *refusal.status_mut() = StatusCode::NOT_FOUND;
            return Err(refusal);
        }
    }
    Ok(response)
}
