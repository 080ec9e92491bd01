#!/usr/bin/env bash
# Runs a command beside a Postgres server of its own, which is gone afterwards: postgres.sh COMMAND [ARGUMENT...]
#
# The command finds the server by CARACAL_TEST_POSTGRES, an address and a port on loopback; the user is `caracal`, a
# superuser without a password, the database `postgres`. Nothing is kept, and no other Postgres is touched.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=$(scripts/setup.sh where-postgres)
dir=$(mktemp -d)

# Postgres refuses to run as root.
as_user=()
if [ "$(id -u)" -eq 0 ]; then
    chown nobody "$dir"
    as_user=(setpriv --reuid=nobody --regid=nogroup --clear-groups --)
fi

stop() {
    # Immediate: there is nothing to keep.
    (cd / && "${as_user[@]}" "$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null 2>&1) || true
    rm -rf "$dir"
}
trap stop EXIT

# A port that is free now; should somebody else be faster, the next one is tried.
port() {
    local port
    for port in $(shuf -i 20000-29999 -n 20); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
}

(cd / && "${as_user[@]}" "$bin/initdb" -D "$dir/data" -U caracal -A trust -E UTF8 --locale=C --no-sync >/dev/null)
for _ in 1 2 3; do
    port=$(port)
    if (cd / && "${as_user[@]}" "$bin/pg_ctl" -D "$dir/data" -w -t 30 -l "$dir/log" start -o \
        "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c max_connections=200" \
        >/dev/null); then
        started=yes
        break
    fi
done
[ -n "${started:-}" ] || { echo "postgres.sh: the server did not start:" >&2; cat "$dir/log" >&2; exit 1; }

CARACAL_TEST_POSTGRES=127.0.0.1:$port "$@"
