//! RFC 6455's server side, table by table, in the families that the Autobahn suite has made
//! standard. Cases run over real sockets and in memory, at once and cut everywhere, against a
//! handler of whole messages and one of pieces. `conformance/table.rs` tells what a case is.

#![allow(clippy::expect_used, reason = "a test says what it expects")]
#![allow(unreachable_pub, reason = "the modules are those of one program")]

#[path = "conformance/closing.rs"]
mod closing;
mod common;
#[path = "common/echo.rs"]
mod echo;
#[path = "conformance/fragments.rs"]
mod fragments;
#[path = "conformance/framing.rs"]
mod framing;
#[path = "conformance/handshake.rs"]
mod handshake;
#[path = "conformance/limits.rs"]
mod limits;
#[path = "conformance/pings.rs"]
mod pings;
#[path = "common/raw.rs"]
mod raw;
#[path = "conformance/reserved.rs"]
mod reserved;
#[path = "conformance/table.rs"]
mod table;
#[path = "conformance/utf8.rs"]
mod utf8;
