//! axum, with its own extractor (tokio-tungstenite beneath, at its default buffers of 128 KiB).

use axum::Router;
use axum::extract::ws::{CloseFrame, Message, WebSocketUpgrade};
use axum::routing::any;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::broadcast;

use super::streams::{self, AnyMessage};
use super::{CROWD_CAPACITY, LAGGING, MESSAGE_BYTES, Outcome, Plan, TRY_AGAIN_LATER, run_on_tokio};

impl AnyMessage for Message {
    fn is_data(&self) -> bool {
        matches!(self, Self::Text(_) | Self::Binary(_))
    }

    fn lagging() -> Self {
        Self::Close(Some(CloseFrame { code: TRY_AGAIN_LATER, reason: LAGGING.into() }))
    }
}

pub(super) fn serve(plan: &Plan) -> Outcome {
    run_on_tokio(plan, accept)
}

async fn accept(listener: TcpListener) -> Outcome {
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            eprintln!("no TCP_NODELAY: {error}");
        }
    });
    let (crowd, _) = broadcast::channel(CROWD_CAPACITY);
    // Whoever leaves ends its own task only.
    let echo = |upgrade: WebSocketUpgrade| async {
        bounded(upgrade).on_upgrade(|socket| async {
            let _ = streams::echo(socket).await;
        })
    };
    let all = |upgrade: WebSocketUpgrade| async {
        let said = crowd.subscribe();
        bounded(upgrade).on_upgrade(|socket| async {
            streams::join(socket, crowd, said).await;
        })
    };
    let router = Router::new().route("/echo", any(echo)).route("/all", any(all));
    Ok(axum::serve(listener, router).await?)
}

fn bounded(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade.max_message_size(MESSAGE_BYTES).max_frame_size(MESSAGE_BYTES)
}
