#!/usr/bin/env bash
# Benches, in a release build: criterion first, then the load scenarios with their ratios. Method and figures are in
# docs/performance.md. Arguments go to criterion, such as the name of a stage; `LOAD_ROUNDS` sets the rounds of the load.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh build
cargo build --release --package caracal --package caracal-benches

# Both parts measure single threads; the micro benches stay on one core, the load scenarios pin themselves.
pin=()
if command -v taskset >/dev/null; then pin=(taskset -c 0); fi
cargo bench --package caracal-benches --no-run
"${pin[@]}" cargo bench --package caracal-benches --benches -- "$@"

"${CARGO_TARGET_DIR:-target}/release/caracal-load" "${LOAD_ROUNDS:-5}"
"${CARGO_TARGET_DIR:-target}/release/caracal-lives"
"${CARGO_TARGET_DIR:-target}/release/caracal-streams"
"${CARGO_TARGET_DIR:-target}/release/caracal-reload"
