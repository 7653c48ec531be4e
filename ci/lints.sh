#!/usr/bin/env bash
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cargo clippy --locked --all-features --all-targets -- -D warnings
# Each feature apart, and none: what the tests do not build.
for features in "" serde testing __internals; do
    cargo clippy --locked --all-targets --features "$features" -- -D warnings
done
cargo clippy --locked -p peregrine -- -D warnings
cargo clippy --locked -p peregrine-peers --all-targets -- -D warnings
