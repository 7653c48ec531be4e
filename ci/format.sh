#!/usr/bin/env bash
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cargo fmt --all --check
