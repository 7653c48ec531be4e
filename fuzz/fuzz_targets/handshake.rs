//! No bytes panic the parser of the opening handshake, and cutting them changes nothing. What is
//! promised stands in `src/fuzzing.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peregrine::fuzzing::handshake(data));
