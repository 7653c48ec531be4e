//! Ours, as its README shows it.

use std::time::Duration;

use peregrine::{Callbacks, CloseCode, Limits, Reply, Server};

use super::{Outcome, Plan, announce};

/// No connection is silent for so long.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn serve(plan: &Plan) -> Outcome {
    let echo = Callbacks::<()>::new().on_message(|_, message| message.into());
    let all = Callbacks::<()>::new().on_message(|ws, message| {
        if let Err(overloaded) = ws.broadcast(message) {
            ws.close_with(CloseCode::TRY_AGAIN_LATER, &overloaded.to_string());
        }
        Reply::none()
    });
    let mut limits = Limits::default();
    // The others do not ping.
    limits.ping_after = NEVER;
    limits.idle_timeout = 2 * NEVER;
    let server = Server::builder()
        .shards(plan.shard_count)
        .limits(limits)
        .websocket("/echo", echo)
        .websocket("/all", all)
        .bind(plan.address)?;
    announce(plan.name, server.local_addr())?;
    Ok(server.run()?)
}
