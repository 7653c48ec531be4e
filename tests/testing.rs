//! The test kit.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]
