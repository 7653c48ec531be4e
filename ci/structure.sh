#!/usr/bin/env bash
# The structure of src/ in numbers: circles of imports, imports that run upward, imports within
# shard/, and the files and functions on the way of an echo, a broadcast across shards, an upgrade
# and a shutdown.
#
#   ci/structure.sh [REVISION] [--long]
#
# Without a revision it reads this folder as it is. With one, it unpacks that revision below target/
# and reads it with today's tools: `tests/tidy` for the imports (layers.rs has the layers, report.rs
# says where files of older trees stand now), `ci/structure` for the ways, which says in its head
# how they are counted. `--long` lists all imports, and the functions of each way.
# Needs valgrind and binutils.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD

revision=""
long=()
for word in "$@"; do
    case $word in
    --long) long=(--long) ;;
    *) revision=$word ;;
    esac
done

tree=$here
if [ -n "$revision" ]; then
    tree=$here/target/structure/$(git rev-parse --short "$revision")
    rm -rf "$tree"
    mkdir -p "$tree"
    git archive "$revision" Cargo.toml Cargo.lock README.md src benches examples tests |
        tar -x -C "$tree"
    mkdir -p "$tree/ci" "$tree/tests/tidy"
    cp -r ci/structure "$tree/ci/"
    cp tests/tidy/tokens.rs "$tree/tests/tidy/"
fi

# Without a lock of its own it would take other versions of the dependencies.
cp "$tree/Cargo.lock" "$tree/ci/structure/Cargo.lock"
printf 'structure of %s\n\n' "${revision:-the working tree}"
PEREGRINE_TREE=$tree PEREGRINE_LONG=${long[0]:-} cargo test --locked --quiet --test tidy -- \
    --ignored --exact --nocapture report | grep -vE '^(running|test result|\.?$)'
echo
cargo build --quiet --release --manifest-path "$tree/ci/structure/Cargo.toml" \
    --target-dir "$here/target/structure/build"
"$here/target/structure/build/release/peregrine-structure" "$tree" "${long[@]}"
