#!/usr/bin/env bash
# The peers answer, the comparison runs, the report is written.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cargo test --locked -p peregrine-peers
cargo test --locked -p peregrine-peers --bench compare -- --test
