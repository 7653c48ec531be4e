//! actix-ws. Its workers are threads of their own, with one more that accepts.

use actix_web::rt::{self, System};
use actix_web::web::{self, Bytes, Data, Payload};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use actix_ws::{
    AggregatedMessage, AggregatedMessageStream, CloseCode, CloseReason, Closed, MessageStream,
    Session,
};
use bytestring::ByteString;
use tokio::select;
use tokio::sync::broadcast::{self, Receiver, Sender};

use super::{
    CROWD_CAPACITY, LAGGING, MESSAGE_BYTES, Outcome, Plan, TRY_AGAIN_LATER, announce, next_said,
};

/// What is shared with all members.
#[derive(Clone)]
enum Said {
    Text(ByteString),
    Binary(Bytes),
}

pub(super) fn serve(plan: &Plan) -> Outcome {
    let (crowd, _) = broadcast::channel::<Said>(CROWD_CAPACITY);
    System::new().block_on(async {
        let server = HttpServer::new(move || {
            App::new()
                .app_data(Data::new(crowd.clone()))
                .route("/echo", web::get().to(echo))
                .route("/all", web::get().to(join))
        })
        .workers(plan.shard_count)
        .tcp_nodelay(true)
        .bind(plan.address)?;
        announce(plan.name, server.addrs()[0])?;
        Ok(server.run().await?)
    })
}

async fn echo(request: HttpRequest, body: Payload) -> actix_web::Result<HttpResponse> {
    let (response, mut session, stream) = actix_ws::handle(&request, body)?;
    let mut messages = whole(stream);
    rt::spawn(async move {
        while let Some(Ok(message)) = messages.recv().await {
            match message {
                AggregatedMessage::Text(text) => session.text(text).await?,
                AggregatedMessage::Binary(bytes) => session.binary(bytes).await?,
                AggregatedMessage::Ping(payload) => session.pong(&payload).await?,
                AggregatedMessage::Pong(_) => {}
                AggregatedMessage::Close(reason) => return session.close(reason).await,
            }
        }
        session.close(None).await
    });
    Ok(response)
}

async fn join(
    request: HttpRequest,
    body: Payload,
    crowd: Data<Sender<Said>>,
) -> actix_web::Result<HttpResponse> {
    let (response, session, stream) = actix_ws::handle(&request, body)?;
    rt::spawn(attend(session, whole(stream), Sender::clone(&crowd), crowd.subscribe()));
    Ok(response)
}

/// A member of the crowd: what it says is said to all, what was said to all is sent to it.
async fn attend(
    mut session: Session,
    mut messages: AggregatedMessageStream,
    crowd: Sender<Said>,
    mut said: Receiver<Said>,
) -> Result<(), Closed> {
    loop {
        select! {
            message = messages.recv() => {
                // There is one who hears: this one.
                let _ = match message {
                    Some(Ok(AggregatedMessage::Text(text))) => crowd.send(Said::Text(text)),
                    Some(Ok(AggregatedMessage::Binary(bytes))) => crowd.send(Said::Binary(bytes)),
                    Some(Ok(AggregatedMessage::Ping(payload))) => {
                        session.pong(&payload).await?;
                        continue;
                    }
                    Some(Ok(AggregatedMessage::Pong(_))) => continue,
                    Some(Ok(AggregatedMessage::Close(why))) => return session.close(why).await,
                    Some(Err(_)) | None => return session.close(None).await,
                };
            }
            message = next_said(&mut said) => match message {
                Some(Said::Text(text)) => session.text(text).await?,
                Some(Said::Binary(bytes)) => session.binary(bytes).await?,
                None => {
                    let code = CloseCode::from(TRY_AGAIN_LATER);
                    let description = Some(LAGGING.to_owned());
                    return session.close(Some(CloseReason { code, description })).await;
                }
            },
        }
    }
}

/// Fragments are put together, as all others do it.
fn whole(stream: MessageStream) -> AggregatedMessageStream {
    stream
        .max_frame_size(MESSAGE_BYTES)
        .aggregate_continuations()
        .max_continuation_size(MESSAGE_BYTES)
}
