#!/usr/bin/env bash
# Runs the interop tests with .venv, or says loudly that they are skipped. With CI=true a skip is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/target/tools/bin:$PATH"

if [ ! -x .venv/bin/python ]; then
    echo "interop: SKIPPED: there is no .venv, because no Python >= 3.12 was found" >&2
    if [ "${CI:-}" = true ]; then
        exit 1
    fi
    exit 0
fi
echo "interop: the official clients against ${CARACAL_BIN:?names the built binary}" >&2
exec .venv/bin/python -m pytest -q -p no:cacheprovider interop "$@"
