#!/usr/bin/env bash
# Tests under the address and leak sanitizer. Not all: some leak on purpose, some measure memory.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if ! ls "$(rustc --print target-libdir)"/librustc*_rt.asan.a >/dev/null 2>&1; then
    step "skipped: this toolchain has no address sanitizer"
    exit
fi
host=$(rustc -vV | sed -n 's/^host: //p')
# `sanitized` leaves out what these tests do not need, see tests/Cargo.toml.
RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address --cfg sanitized" \
    cargo test --locked -p peregrine-tests --all-features --target "$host" --target-dir target/asan \
    --test interplay --test told --test streams --test later --test http
