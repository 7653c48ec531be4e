#!/usr/bin/env bash
# Fuzzes each target for 15 s, as many side by side as there are processors; with arguments, those
# that are named. The build is that of `cargo fuzz build --sanitizer none`, without cargo-fuzz.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

host=$(rustc -vV | sed -n 's/^host: //p')
coverage=(level=4 inline-8bit-counters pc-table trace-compares)
flags="--cfg fuzzing -Cdebug-assertions -Ccodegen-units=1 -Cpasses=sancov-module"
for setting in "${coverage[@]}"; do
    flags+=" -Cllvm-args=-sanitizer-coverage-$setting"
done
RUSTFLAGS="$flags" cargo build --locked --release --manifest-path fuzz/Cargo.toml \
    --target "$host" --bins

# Prints the end of a target's output, in one piece.
fuzz() {
    local target=$1 status=0 found
    found=$(mktemp -d)
    mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
    # New inputs go to the first folder, the others are only read.
    "fuzz/target/$host/release/$target" -max_total_time=15 -print_final_stats=1 \
        -artifact_prefix="fuzz/artifacts/$target/" "$found" "fuzz/corpus/$target" \
        >"$found.log" 2>&1 || status=$?
    printf '\n== fuzz: %s\n%s\n' "$target" "$(tail -n "$((status == 0 ? 12 : 60))" "$found.log")"
    rm -r "$found" "$found.log"
    return "$status"
}
export -f fuzz
export host

if [ "$#" -eq 0 ]; then
    set -- frames handshake protocol_ops proxy_header query
fi
printf '%s\n' "$@" | xargs -P "$(nproc)" -I{} bash -c 'fuzz {}'
