//! No bytes panic what listens to proxies, and nobody speaks in the name of a trusted one. What is
//! promised stands in `src/fuzzing.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peregrine::fuzzing::proxy_header(data));
