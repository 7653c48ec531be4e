#!/usr/bin/env bash
# What threads share, in every order.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
RUSTFLAGS="--cfg loom" LOOM_MAX_DURATION=60 timeout 900 \
    cargo test --locked -p peregrine-tests --lib --target-dir target/loom loom
