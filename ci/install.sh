#!/usr/bin/env bash
# Installs what some tests need beside the Rust toolchain, where it is missing. Without it those
# tests say that they are skipped.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

install() {
    local log="/tmp/peregrine-$1.log"
    step "installing $*"
    (apt-get update && apt-get install -y --no-install-recommends "$@") >"$log" 2>&1 ||
        tail -n 5 "$log"
}

# For tests/browser.rs.
if ! { command -v chromium && command -v chromedriver; } >/dev/null; then
    install chromium chromium-driver
fi
# For the budget.
if ! command -v valgrind >/dev/null; then
    install valgrind
fi

# For tests/autobahn.rs. The suite runs on Python 2.7 only.
for python in "$HOME"/.pyenv/versions/2.7.*/bin/python2.7 /usr/bin/python2.7; do
    [ -x "$python" ] || continue
    step "installing the Autobahn suite"
    export PYTHONUSERBASE=/tmp/peregrine-autobahn
    timeout 300 "$python" -m pip install --user --no-warn-script-location \
        autobahntestsuite==25.10.1 >/tmp/peregrine-pip.log 2>&1 || tail -n 5 /tmp/peregrine-pip.log
    if "$PYTHONUSERBASE/bin/wstest" --autobahnversion; then
        break
    fi
done
