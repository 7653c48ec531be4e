#!/usr/bin/env bash
# Licenses, sources and versions of the dependencies, as deny.toml allows them. With
# PEREGRINE_CHECK_ADVISORIES=1 also the advisories, whose database comes from the network.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if ! command -v cargo-deny >/dev/null; then
    step "installing cargo-deny"
    # Not optimised: that takes longer than the check.
    cargo install --locked --quiet --debug cargo-deny@0.20.2
fi
checks=(bans licenses sources)
if [ -n "${PEREGRINE_CHECK_ADVISORIES:-}" ]; then
    checks+=(advisories)
else
    step "advisories are not checked (PEREGRINE_CHECK_ADVISORIES is not set)"
fi
cargo deny --locked check "${checks[@]}"
