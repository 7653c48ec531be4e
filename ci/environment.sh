# Sourced by the other scripts: they run at the repository's root, and share these settings.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TERM_COLOR=never
export CARGO_INCREMENTAL=0

step() { printf '\n== %s\n' "$*"; }
