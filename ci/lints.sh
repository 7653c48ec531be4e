#!/usr/bin/env bash
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cargo clippy --locked --all-features --all-targets -- -D warnings
cargo clippy --locked --all-targets -- -D warnings
# The library with each feature apart: what the tests do not build.
for features in serde testing __internals; do
    cargo clippy --locked -p peregrine --features "$features" -- -D warnings
done
cargo clippy --locked -p peregrine-peers --all-targets -- -D warnings
