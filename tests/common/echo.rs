//! An echo of either kind, with limits that leave room for anything that a suite of tests sends.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

use std::time::Duration;

use peregrine::{Callbacks, Chunk, Limits, Reply, ServerBuilder, WebSocket};

/// The largest message of the Autobahn suite, and of our own tests, in bytes.
pub const MESSAGE_BYTES: usize = 16 << 20;

/// The paths of the two echoes: one gets whole messages, the other pieces.
pub const PATHS: [&str; 2] = ["/messages", "/pieces"];

/// A message of which the end has not come.
#[derive(Debug, Default)]
pub struct Gathered {
    text: String,
    bytes: Vec<u8>,
}

fn gather<'m>(ws: &mut WebSocket<'_, Gathered>, fragment: Chunk<'m>) -> Reply<'m> {
    if fragment.is_first() && fragment.is_last() {
        return fragment.message().into();
    }
    let gathered = ws.session_mut();
    match fragment.as_text() {
        Some(text) => gathered.text.push_str(text),
        None => gathered.bytes.extend_from_slice(fragment.as_bytes()),
    }
    match (fragment.is_last(), fragment.as_text()) {
        (false, _) => Reply::none(),
        (true, Some(_)) => std::mem::take(&mut gathered.text).into(),
        (true, None) => std::mem::take(&mut gathered.bytes).into(),
    }
}

/// Serves both echoes.
pub fn serve(builder: ServerBuilder) -> ServerBuilder {
    let mut limits = Limits::default();
    (limits.max_message_bytes, limits.max_frame_bytes) = (MESSAGE_BYTES, MESSAGE_BYTES);
    limits.max_fragments = u32::MAX;
    limits.max_empty_frames_per_second = 2000;
    // The tests' patience decides, on a machine that is busy.
    limits.close_timeout = Duration::from_secs(60);
    let in_messages = Callbacks::<()>::new().on_message(|_, message| message.into());
    let in_pieces = Callbacks::<Gathered>::new().on_chunk(gather);
    builder.limits(limits).websocket(PATHS[0], in_messages).websocket(PATHS[1], in_pieces)
}
