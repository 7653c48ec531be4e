//! What the kernel tells a shard is told once.

use std::time::Duration;

use mio::net::UnixStream;
use mio::{Events, Interest, Token};

use crate::handler::Callbacks;
use crate::server::{Parts, Server, Shards};
use crate::shard::{EventLoop, clock};

/// Looks at the kernel as it does before timers fire, if there may be more than one look brings.
#[test]
fn a_wake_up_that_is_found_when_timers_fire_is_not_lost() {
    let builder = Server::builder().shards(1).websocket("/", Callbacks::<()>::new());
    let Ok(Parts { mut shard_parts, service, limits, hub, .. }) = builder.prepare(Shards::One)
    else {
        panic!("a right server")
    };
    let now = clock::now();
    let shard = EventLoop::new(shard_parts.remove(0), service, limits, hub.clone(), now);
    let mut shard = shard.expect("a shard");
    shard.shard.arm(0, now);
    shard.shard.set_now(now + Duration::from_secs(1));
    let (mut full, _peer) = UnixStream::pair().expect("sockets");
    let registered = shard.poll.registry().register(&mut full, Token(0), Interest::WRITABLE);
    registered.expect("a descriptor");
    let mut events = Events::with_capacity(1);
    shard.wait(&mut events, Some(Duration::ZERO)).expect("a look");
    assert_eq!(events.iter().count(), 1, "the look was full");

    hub.broadcast("/", "hello").expect("room");
    shard.fire_timers(&mut events);
    assert_eq!(shard.timeout(), Some(Duration::ZERO), "nobody wakes it a second time");
    shard.take_mail();
    assert!(shard.shard.take_envelope().is_none(), "it was taken");
}
