//! What an idle connection holds, written down in one place: DESIGN section 9 allows 320 bytes of
//! memory for it. `tests/footprint.rs` measures the same from outside.
//!
//! Knows what keeps something for each connection, and how much; must not know what for.

use crate::hub::Slot;
use crate::shard::connection::Connection;
use crate::shard::dispatch::Application;
use crate::shard::timers::Wheel;

/// A place in a slab, as large as slab's own entry, which is private.
#[expect(dead_code, reason = "only its size counts")]
enum Entry<T> {
    Vacant(usize),
    Occupied(T),
}

/// Its state, in its slot.
const CONNECTION_BYTES: usize = size_of::<Entry<Connection>>();

/// Its place among the members of its endpoint.
const PLACE_BYTES: usize = size_of::<Entry<Slot>>();

/// All that there is for it in this process. Nothing on the heap belongs to it, unless its session
/// has a size, or its request had a query, path parameters or a subprotocol; and mio keeps nothing:
/// what epoll knows of it, its socket included, is the kernel's.
const SUM_BYTES: usize =
    CONNECTION_BYTES + Application::SESSION_BYTES + Wheel::ENTRY_BYTES + PLACE_BYTES;

// Without optimisation mio's socket knows where it is registered, and the test kit's may be a pipe.
const KIT_BYTES: usize = if cfg!(any(debug_assertions, feature = "testing")) { 8 } else { 0 };

const _: () = assert!(CONNECTION_BYTES <= 200 + KIT_BYTES);
const _: () = assert!(Application::SESSION_BYTES <= 16);
const _: () = assert!(Wheel::ENTRY_BYTES <= 16);
const _: () = assert!(PLACE_BYTES <= 16);
// What is left to the 320 is for the growth of what these stand in.
const _: () = assert!(SUM_BYTES <= 248 + KIT_BYTES);
