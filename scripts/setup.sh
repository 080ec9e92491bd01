#!/usr/bin/env bash
# Installs what is missing for one or more purposes and says what it does:
#
#   setup.sh [build] [tests] [python] [node-peers] [servers] [deny]
#
#   build       a C compiler and cmake (the cryptography library is partly C)
#   tests       cargo-nextest, promtool, redis-server, a Postgres server
#   python      Python >= 3.12 and .venv with interop/requirements.txt
#   node-peers  Node >= 18.12 and interop/node_modules with what interop/package-lock.json names
#   servers     nginx, HAProxy and Node, whose parsers the edge's framing is tested against; none of them is started
#   deny        cargo-deny
#
# Without a Python or a Node of that age the interop tests with them are skipped, and said to be; with CI=true that is
# a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/target/tools/bin:$PATH"

say() { echo "setup: $*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
in_ci() { [ "${CI:-}" = true ]; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo; then
        say "needs root for: $*"
        sudo "$@"
    else
        die "needs root for \`$*\` and there is no sudo; run it as root, then try again"
    fi
}

apt_refresh() {
    [ -n "${APT_REFRESHED:-}" ] && return
    as_root apt-get update -qq
    APT_REFRESHED=1
}

# apt_install PACKAGE FOR: installs a Debian package, or says what to install by hand.
apt_install() {
    have apt-get || die "$2 is missing and there is no apt-get here; install it with your package manager"
    say "installing $1 with apt-get"
    apt_refresh
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >&2
    have "$2" || die "$1 was installed but $2 is still not on the PATH"
}

setup_build() {
    have cargo || die "cargo is missing: install Rust 1.90 or newer (https://rustup.rs)"
    have cc || apt_install build-essential cc
    have cmake || apt_install cmake cmake
}

setup_tests() {
    if ! cargo nextest --version >/dev/null 2>&1; then
        say "installing cargo-nextest (a few minutes, once)"
        cargo install --locked cargo-nextest
    fi
    have promtool || take_program promtool prometheus
    have redis-server || setup_redis
    postgres_bin >/dev/null || setup_postgres
}

# The folder with initdb, pg_ctl and postgres, which Debian keeps off the PATH.
postgres_bin() {
    local candidate
    shopt -s nullglob
    for candidate in $(have pg_config && pg_config --bindir) /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do
        [ -x "$candidate/initdb" ] && [ -x "$candidate/postgres" ] && { echo "$candidate"; return; }
    done
    have initdb && have postgres && dirname "$(command -v initdb)"
}

# Without a cluster: Debian's package would make one and start it on port 5432.
setup_postgres() {
    have apt-get || die "a Postgres server is missing and there is no apt-get here; install it with your package manager"
    say "installing Postgres with apt-get (no cluster is made and none is started)"
    apt_refresh
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql-common >&2
    as_root sed -i 's/^#*create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >&2
    postgres_bin >/dev/null || die "Postgres was installed but its programs are not in /usr/lib/postgresql"
}

# Only the program is wanted, its libraries with it: the package redis-server would also start a server on port 6379.
setup_redis() {
    apt_install redis-tools redis-cli
    # In this package the server is redis-cli's neighbour under another name: it becomes a server by its name.
    mkdir -p target/tools/bin
    ln -sf "$(readlink -f "$(command -v redis-check-rdb)")" target/tools/bin/redis-server
    redis-server --version >&2
}

# take_program PROGRAM PACKAGE...: takes a program out of the first of these Debian packages that has it, and installs
# the libraries it needs. Installing the package itself would also start its service.
take_program() {
    local program=$1 package folder from
    shift
    if ! have apt-get || ! have dpkg-deb; then
        not_to_be_had "$program" "there is no apt-get here"
        return
    fi
    apt_refresh
    for package in "$@"; do
        say "fetching $program out of the Debian package $package (it is not installed as a service)"
        folder=$(mktemp -d)
        if (cd "$folder" && apt-get download -qq "$package" >&2 && dpkg-deb -x "$package"_*.deb out); then
            for from in "$folder/out/usr/bin/$program" "$folder/out/usr/sbin/$program"; do
                [ -f "$from" ] || continue
                if [[ $(ldd "$from") == *'not found'* ]]; then
                    install_libraries "$folder/$package"_*.deb
                fi
                mkdir -p target/tools/bin
                install -m 755 "$from" "target/tools/bin/$program"
                rm -rf "$folder"
                return
            done
        fi
        rm -rf "$folder"
    done
    not_to_be_had "$program" "no package that has it could be downloaded"
}

# install_libraries FILE: of what a package depends on, the libraries that are missing. They bring no service, and those
# that are there stay as they are.
install_libraries() {
    local -a libraries
    mapfile -t libraries < <(dpkg-deb -f "$1" Depends | tr ',' '\n' | sed -nE 's/^ *(lib[^ (|]+).*/\1/p')
    say "installing what is missing of ${libraries[*]} with apt-get"
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends --no-upgrade "${libraries[@]}" >&2
}

not_to_be_had() {
    in_ci && die "$1 cannot be had: $2"
    say "WARNING: $1 cannot be had ($2): the tests that need it will say so"
}

setup_servers() {
    have nginx || take_program nginx nginx nginx-light nginx-core
    have haproxy || take_program haproxy haproxy
    have node || apt_install nodejs node
}

# Prints the first Python >= 3.12 it finds, looking into version managers too.
find_python() {
    local candidate
    local -a candidates=("${PYTHON:-}" python3.14 python3.13 python3.12 python3)
    have uv && candidates+=("$(uv python find '>=3.12' 2>/dev/null || true)")
    shopt -s nullglob
    candidates+=(
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python3
        "${ASDF_DATA_DIR:-$HOME/.asdf}"/installs/python/3.*/bin/python3
        "${MISE_DATA_DIR:-$HOME/.local/share/mise}"/installs/python/3.*/bin/python3
        "${XDG_DATA_HOME:-$HOME/.local/share}"/uv/python/cpython-3.*/bin/python3
        /usr/local/bin/python3.1[2-9] /opt/python/*/bin/python3
    )
    shopt -u nullglob
    for candidate in "${candidates[@]}"; do
        [ -n "$candidate" ] && have "$candidate" || continue
        # A version manager's shim exists also for versions that are not selected: run it.
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

setup_python() {
    local python stamp
    stamp=".venv/requirements.$(sha256sum interop/requirements.txt | cut -c1-16)"
    [ -e "$stamp" ] && return
    if ! python=$(find_python); then
        in_ci && die "no Python >= 3.12 with venv was found, and CI must run the interop tests"
        say "**********************************************************************"
        say "WARNING: no Python >= 3.12 (with venv and ensurepip) was found."
        say "The interop tests with the official clients will be SKIPPED."
        say "Looked on the PATH and at pyenv, uv, asdf and mise; PYTHON=/path overrides."
        say "**********************************************************************"
        rm -rf .venv
        return
    fi
    say "making .venv with $python ($("$python" --version))"
    rm -rf .venv
    "$python" -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check --requirement interop/requirements.txt
    touch "$stamp"
}

# The authorization servers and the MCP client that the interop tests start. No script of a package is run.
setup_node_peers() {
    local stamp why=""
    stamp="interop/node_modules/.lock.$(sha256sum interop/package-lock.json | cut -c1-16)"
    [ -e "$stamp" ] && have node && return
    if have apt-get; then
        have node || apt_install nodejs node
        have npm || apt_install npm npm
    fi
    if ! have node || ! have npm; then
        why="no Node with npm was found"
    elif ! node -e 'const [major, minor] = process.versions.node.split(".").map(Number);
        process.exit(major > 18 || (major === 18 && minor >= 12) ? 0 : 1)'; then
        why="Node $(node --version) is older than 18.12"
    fi
    if [ -n "$why" ]; then
        in_ci && die "$why, and CI must run the tests with programs for Node"
        say "**********************************************************************"
        say "WARNING: $why."
        say "The interop tests with authorization servers and the TypeScript client for MCP will be SKIPPED."
        say "**********************************************************************"
        rm -rf interop/node_modules
        return
    fi
    say "installing the packages of interop/package-lock.json with npm"
    (cd interop && npm ci --ignore-scripts --no-audit --no-fund --silent)
    touch "$stamp"
}

setup_deny() {
    if ! cargo deny --version >/dev/null 2>&1; then
        say "installing cargo-deny (a few minutes, once)"
        cargo install --locked cargo-deny
    fi
}

if [ "${1:-}" = where-postgres ]; then
    postgres_bin || die "no Postgres server is installed: scripts/setup.sh tests"
    exit
fi

for purpose in "$@"; do
    case "$purpose" in
        build | tests | python | node-peers | servers | deny) "setup_${purpose//-/_}" ;;
        *) die "unknown purpose \`$purpose\`: build, tests, python, node-peers, servers or deny" ;;
    esac
done
