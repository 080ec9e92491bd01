#!/usr/bin/env bash
# Starts the quickstart and shows one governed call and one denial, narrated.
#
#   quickstart.sh run    keeps serving until Ctrl-C, on a copy in .run/quickstart that you may edit
#   quickstart.sh demo   ends by itself and fails if anything is not as shown, on a fresh copy in .run/demo
set -euo pipefail
cd "$(dirname "$0")/.."

mode=${1:?run or demo}
bin=${CARACAL_BIN:?names the built binary}
case "$mode" in
    run) home=.run/quickstart ;;
    demo) home=.run/demo ;;
    *) echo "quickstart: unknown mode \`$mode\`: run or demo" >&2 && exit 64 ;;
esac
config=$home/caracal.toml
secret_file=$home/demo-agent.secret
edge=""
echo_upstream=""

say() { printf '\n\033[1m== %s\033[0m\n' "$*" | if [ -t 1 ]; then cat; else sed 's/\x1b\[[0-9;]*m//g'; fi; }
die() { echo "quickstart: $*" >&2; exit 1; }

# Only what this script started is stopped, by its process id.
stop() {
    trap - EXIT
    trap '' INT TERM
    for pid in $edge $echo_upstream; do
        kill -TERM "$pid" 2>/dev/null || true
    done
    for pid in $edge $echo_upstream; do
        wait "$pid" 2>/dev/null || true
    done
}
trap stop EXIT
trap 'say "Stopping"; stop; echo "stopped; the state is kept in $home/state"; exit 0' INT TERM

# A fresh copy. `run` keeps the state of an earlier run: a ledger goes on, it does not begin again.
prepare() {
    umask 077
    if [ "$mode" = demo ]; then
        rm -rf "$home"
    fi
    mkdir -p "$home"
    rm -rf "$home/bundles"
    cp -R examples/quickstart/bundles examples/quickstart/caracal.toml examples/quickstart/secrets.toml "$home/"
    chmod 600 "$home/secrets.toml"
    grep -Eo 'demo-[A-Za-z0-9_-]{43}$' examples/quickstart/README.md >"$secret_file"
}

# wait_for LOG TEXT PID: until the text is in the log; fails at once when the process is gone.
wait_for() {
    local deadline=$((SECONDS + 30))
    until grep -q -- "$2" "$1" 2>/dev/null; do
        if ! kill -0 "$3" 2>/dev/null; then
            cat "$1" >&2
            die "it did not start; if an address is in use, stop what uses it and try again"
        fi
        [ "$SECONDS" -lt "$deadline" ] || die "not ready after 30 s; see $1"
        sleep 0.05
    done
}

wait_for_port() {
    local deadline=$((SECONDS + 30))
    until (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do
        kill -0 "$2" 2>/dev/null || { cat "$3" >&2; die "nothing listens on port $1; see above"; }
        [ "$SECONDS" -lt "$deadline" ] || die "port $1 did not open in 30 s"
        sleep 0.05
    done
}

call() {
    local scope=$1
    shift
    "$bin" call --config "$config" --zone quickstart --app demo-agent --secret-file "$secret_file" \
        --resource resource://echo --scope "$scope" "$@"
}

prepare

say "The files, checked as a reload would check them"
"$bin" check --config "$config"

say "Starting an upstream that shows what it receives (127.0.0.1:9000) and the edge"
# In process groups of their own: a Ctrl-C is for this script, and a second signal would cut their stop short.
set -m
"$bin" echo --listen 127.0.0.1:9000 >"$home/echo.log" 2>&1 &
echo_upstream=$!
"$bin" serve --config "$config" >"$home/edge.log" 2>&1 &
edge=$!
set +m
wait_for "$home/edge.log" 'caracal: ready' "$edge"
wait_for_port 9000 "$echo_upstream" "$home/echo.log"
grep -m 1 'caracal: ready' "$home/edge.log"

say "A governed call: demo-agent reads /read/hello with a mandate; the edge adds the key that demo-agent never sees"
call echo:read GET /read/hello || die "the call was to be allowed"

say "A denial: nobody was granted echo:write"
code=0
call echo:write POST /write/hello || code=$?
[ "$code" -eq 3 ] || die "the call was to be denied (exit code 3), and ended with $code"

say "The ledger: what was decided, and what came of it"
"$bin" audit tail --config "$config" --zone quickstart -n 16
"$bin" audit key --config "$config" >"$home/ledger.pub"
"$bin" audit verify --config "$config" --key "$home/ledger.pub"

if [ "$mode" = demo ]; then
    say "Stopping, and looking for the injected key in everything the edge wrote"
    kill -TERM "$edge"
    wait "$edge" || die "the edge did not stop cleanly; see $home/edge.log"
    edge=""
    "$bin" audit verify --config "$config" --key "$home/ledger.pub"
    key=$(sed -n 's/^api_key = "\(.*\)"$/\1/p' "$home/secrets.toml")
    [ -n "$key" ] && [ -d "$home/state" ] || die "there is nothing to look for or in"
    if grep -rlF -- "$key" "$home/state" "$home/edge.log" "$home/echo.log"; then
        die "the injected key was found there"
    fi
    echo "found nowhere; the demo is over"
    exit 0
fi

say "Serving until Ctrl-C. To try next, in another terminal:"
cat <<NEXT
  caracal=$bin

  export CARACAL_EDGE_CONFIG=$config CARACAL_APPLICATION_ID=demo-agent CARACAL_APP_CLIENT_SECRET_FILE=$secret_file

  an allowed call      \$caracal call --resource resource://echo --scope echo:read GET /read/hello
  a denied operation   \$caracal call --resource resource://echo --scope echo:read GET /admin
  a change of policy   edit $home/bundles/quickstart/policies/grants.toml, save, and call again
  the emergency stop   \$caracal freeze quickstart    (and unfreeze)
  an SDK's variables   eval "\$(\$caracal env)"
  what happened        \$caracal audit tail
  how it is            \$caracal status

The edge's log is $home/edge.log.
NEXT
wait "$edge" || die "the edge stopped; see $home/edge.log"
