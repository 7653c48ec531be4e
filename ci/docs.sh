#!/usr/bin/env bash
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
RUSTDOCFLAGS="-D warnings" \
    cargo doc --locked -p peregrine --all-features --no-deps --document-private-items
