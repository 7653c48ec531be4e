#!/usr/bin/env bash
# The README's command: unit tests, integration tests, examples, doctests, the load generator. A
# test that needs what is installed here must run, and is not skipped.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if { command -v chromium && command -v chromedriver; } >/dev/null; then
    export PEREGRINE_REQUIRE_BROWSER=1
fi
# Links that are cut need network namespaces.
if ip netns add prg-probe 2>/dev/null; then
    ip netns delete prg-probe
    export PEREGRINE_REQUIRE_NETNS=1
fi
# Where ci/install.sh puts it.
if PYTHONUSERBASE=/tmp/peregrine-autobahn /tmp/peregrine-autobahn/bin/wstest --autobahnversion \
    >/dev/null 2>&1; then
    export PYTHONUSERBASE=/tmp/peregrine-autobahn
    export PEREGRINE_WSTEST="$PYTHONUSERBASE/bin/wstest" PEREGRINE_REQUIRE_AUTOBAHN=1
fi

cargo test --locked --all-features
