//! Lane and engine, and lane and pieces, mean the same as tungstenite alone, however a stream is
//! cut. The harness is the one of the unit tests: `src/protocol/tests/reference.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peregrine::fuzzing::frames(data));
