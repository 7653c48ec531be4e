//! The programs of `docs/comparison/` that are written in Rust compile. They are not run.

#![allow(dead_code, reason = "nobody calls their mains")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "they follow other rules than ours")]
#![allow(clippy::print_stdout, reason = "they tell where they serve")]

#[path = "../../../docs/comparison/auth_echo/actix_ws.rs"]
mod auth_echo_with_actix_ws;
#[path = "../../../docs/comparison/auth_echo/axum.rs"]
mod auth_echo_with_axum;
#[path = "../../../docs/comparison/database/actix_ws.rs"]
mod database_with_actix_ws;
#[path = "../../../docs/comparison/database/axum.rs"]
mod database_with_axum;
#[path = "../../../docs/comparison/rooms/actix_ws.rs"]
mod rooms_with_actix_ws;
#[path = "../../../docs/comparison/rooms/axum.rs"]
mod rooms_with_axum;
#[path = "../../../docs/comparison/ticker/actix_ws.rs"]
mod ticker_with_actix_ws;
#[path = "../../../docs/comparison/ticker/axum.rs"]
mod ticker_with_axum;
#[path = "../../../docs/comparison/upload/actix_ws.rs"]
mod upload_with_actix_ws;
#[path = "../../../docs/comparison/upload/axum.rs"]
mod upload_with_axum;
