#!/usr/bin/env bash
# The benchmarks run: each measurement once, in the profile of the tests, whose dependencies they
# share. Their figures mean nothing here.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cargo test --locked --all-features --bench throughput --bench parts -- --test
