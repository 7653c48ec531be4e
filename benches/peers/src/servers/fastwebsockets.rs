//! fastwebsockets behind hyper's upgrade, after its `examples/echo_server.rs`, the server of its
//! own benchmarks, with one thing added. It writes each frame by itself, which makes it ten times
//! as slow with 32 messages in flight; so its stream is buffered, which its `flush` provides for.
//! With one message in flight that costs nothing that could be measured.
//!
//! `/all` needs its `unstable-split`: a read of it must not be given up half-way.

use std::convert::Infallible;

use bytes::Bytes;
use fastwebsockets::upgrade::{self, UpgradeFut};
use fastwebsockets::{
    FragmentCollector, FragmentCollectorRead, Frame, OpCode, Payload, Role, WebSocket,
    WebSocketError, WebSocketRead, WebSocketWrite,
};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{self, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpListener;
use tokio::select;
use tokio::sync::broadcast::{self, Receiver, Sender};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::unconstrained;

use super::corked::Corked;
use super::{
    CROWD_CAPACITY, LAGGING, MESSAGE_BYTES, Outcome, Plan, TRY_AGAIN_LATER, next_said, run_on_tokio,
};

type Stream = Corked<TokioIo<Upgraded>>;

/// What is shared with all members.
type Said = (OpCode, Bytes);

pub(super) fn serve(plan: &Plan) -> Outcome {
    run_on_tokio(plan, accept)
}

async fn accept(listener: TcpListener) -> Outcome {
    let (crowd, _) = broadcast::channel(CROWD_CAPACITY);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let crowd = crowd.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, crowd.clone()));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // Whoever leaves ends its own task only.
            let _ = connection.with_upgrades().await;
        });
    }
}

async fn answer(
    mut request: Request<Incoming>,
    crowd: Sender<Said>,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let said = match request.uri().path() {
        "/echo" => None,
        "/all" => Some(crowd.subscribe()),
        _ => {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::NOT_FOUND;
            return Ok(response);
        }
    };
    let (response, upgrade) = upgrade::upgrade(&mut request)?;
    tokio::spawn(unconstrained(async move {
        let _ = match said {
            Some(said) => join(upgrade, crowd, said).await,
            None => echo(upgrade).await,
        };
    }));
    Ok(response)
}

async fn open(upgrade: UpgradeFut) -> Result<WebSocket<Stream>, WebSocketError> {
    // Nothing has been read yet that could be lost.
    let stream = Corked::new(upgrade.await?.into_inner());
    let mut socket = WebSocket::after_handshake(stream, Role::Server);
    // It refuses what is as long as its limit.
    socket.set_max_message_size(MESSAGE_BYTES + 1);
    Ok(socket)
}

async fn echo(upgrade: UpgradeFut) -> Result<(), WebSocketError> {
    let mut socket = FragmentCollector::new(open(upgrade).await?);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(socket.into_inner().flush().await?),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            _ => {}
        }
    }
}

async fn join(
    upgrade: UpgradeFut,
    crowd: Sender<Said>,
    said: Receiver<Said>,
) -> Result<(), WebSocketError> {
    let (reader, writer) = open(upgrade).await?.split(io::split);
    let (own, answers) = mpsc::unbounded_channel();
    select! {
        outcome = listen(reader, crowd, own) => outcome,
        outcome = speak(writer, said, answers) => outcome,
    }
}

/// Says to all what this member says. Pongs and Closes that it is owed are left to [`speak`].
async fn listen(
    reader: WebSocketRead<ReadHalf<Stream>>,
    crowd: Sender<Said>,
    own: UnboundedSender<Said>,
) -> Result<(), WebSocketError> {
    let mut reader = FragmentCollectorRead::new(reader);
    let mut owe = async |frame: Frame<'_>| {
        let _ = own.send((frame.opcode, shared(frame.payload)));
        Ok::<(), Infallible>(())
    };
    loop {
        let frame = reader.read_frame(&mut owe).await?;
        if matches!(frame.opcode, OpCode::Text | OpCode::Binary) {
            // There is one who hears: this one.
            let _ = crowd.send((frame.opcode, shared(frame.payload)));
        }
    }
}

/// Sends to this member what was said to all; messages that wait together leave in one write.
async fn speak(
    mut writer: WebSocketWrite<WriteHalf<Stream>>,
    mut said: Receiver<Said>,
    mut answers: UnboundedReceiver<Said>,
) -> Result<(), WebSocketError> {
    loop {
        let (opcode, payload) = select! {
            message = next_said(&mut said) => match message {
                Some(message) => message,
                None => {
                    let close = Frame::close(TRY_AGAIN_LATER, LAGGING.as_bytes());
                    writer.write_frame(close).await?;
                    return writer.flush().await;
                }
            },
            Some(answer) = answers.recv() => answer,
        };
        write(&mut writer, opcode, &payload).await?;
        if opcode == OpCode::Close {
            return writer.flush().await;
        }
        while let Ok((opcode, payload)) = said.try_recv() {
            write(&mut writer, opcode, &payload).await?;
        }
        writer.flush().await?;
    }
}

async fn write(
    writer: &mut WebSocketWrite<WriteHalf<Stream>>,
    opcode: OpCode,
    payload: &[u8],
) -> Result<(), WebSocketError> {
    writer.write_frame(Frame::new(true, opcode, None, Payload::Borrowed(payload))).await
}

/// A payload that came from the network, without a copy of it.
fn shared(payload: Payload<'_>) -> Bytes {
    match payload {
        Payload::Bytes(bytes) => bytes.freeze(),
        other => Bytes::from(Vec::from(other)),
    }
}
