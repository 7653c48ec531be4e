#!/usr/bin/env bash
# Instructions of each operation against the committed table. Arguments are names, or parts of them:
# `ci/budget.sh echo visit`.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# Crates that only other benchmarks need are built, too: cargo knows no dependencies of one benchmark.
# They are not optimised: that takes longer than all the rest.
packages() {
    cargo tree --locked --features __internals --prefix none --format '{p}' "$@" |
        awk '/ v[0-9]/ && !/^peregrine-benches/ { print $1 "@" substr($2, 2) }' | sort -u
}
settings=()
while read -r package; do
    settings+=(--config "profile.bench.package.\"$package\".opt-level=0")
    settings+=(--config "profile.bench.package.\"$package\".debug=0")
done < <(comm -13 <(packages -p peregrine -e normal,build) <(packages -p peregrine-benches))

cargo bench --locked -p peregrine-benches "${settings[@]}" --features __internals --bench budget -- "$@"
