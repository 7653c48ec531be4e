#!/usr/bin/env bash
# Conformance, shutdown and simulation over a transport that behaves as a record layer may: it delays
# every second read, hands out other portions and holds output (src/transport/test/uneven.rs).
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

export PEREGRINE_TEST_TRANSPORT=uneven SIMULATION_COUNT=300
cargo test --locked --all-features --test simulation --test shutdown --test conformance
