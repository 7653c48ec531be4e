//! A connection keeps its promises in whatever order bytes arrive, wait and are skimmed, the server
//! closes, and time passes. The harness is the one of the unit tests:
//! `src/protocol/tests/operations.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peregrine::fuzzing::protocol_ops(data));
