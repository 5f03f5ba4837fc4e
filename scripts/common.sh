# shellcheck shell=bash
# Sourced by the other scripts. Owns three answers: which PostgreSQL, which
# directories, and which system user runs a private server (initdb refuses root).
set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
WORK=$REPO/.work
export EXTENSION=hybridvec
unset RUST_BACKTRACE RUST_LIB_BACKTRACE # or a server would show stack traces as the DETAIL of its errors
export PORT=5432 # of every private server: each has its own socket directory and no TCP

if [[ -t 1 ]]; then BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' PLAIN=$'\e[0m'; else BOLD='' DIM='' RED='' GREEN='' PLAIN=''; fi
export BOLD DIM RED GREEN PLAIN

say() { printf '%s==>%s %s\n' "$BOLD" "$PLAIN" "$*"; }
die() {
    printf '%s%s: %s%s\n' "$RED" "$(basename "$0" .sh)" "$*" "$PLAIN" >&2
    exit 1
}

is_root() { [[ $(id -u) == 0 ]]; }
SERVER_USER=$(if is_root; then echo postgres; else id -un; fi)

# Runs a command as the user that owns the private servers, from a directory that user can enter.
as_server() {
    if is_root; then (cd / && runuser -u "$SERVER_USER" -- "$@"); else "$@"; fi
}

as_root() {
    if is_root; then "$@"; else sudo "$@"; fi
}

default_pg_config() {
    local debian=/usr/lib/postgresql/15/bin/pg_config
    if [[ -x $debian ]]; then
        echo "$debian"
    elif command -v pg_config >/dev/null && pg_config --version | grep -q '^PostgreSQL 15[. ]'; then
        command -v pg_config
    else
        echo "$debian" # not there yet: setup installs it
    fi
}

PG_CONFIG=${PG_CONFIG:-$(default_pg_config)}
export PG_CONFIG

# Sets what follows from PG_CONFIG; callers other than setup.sh run after setup, so it must work.
use_postgres() {
    [[ -x $PG_CONFIG ]] || die "no pg_config at $PG_CONFIG: run 'make setup', or give 'make PG_CONFIG=/path/to/pg_config'"
    BINDIR=$("$PG_CONFIG" --bindir)
    PKGLIBDIR=$("$PG_CONFIG" --pkglibdir)
    PGXS_SRC=$(dirname "$(dirname "$("$PG_CONFIG" --pgxs)")")
    PG_MAJOR=$("$PG_CONFIG" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
    grep -q "^pg$PG_MAJOR = " "$REPO/Cargo.toml" || die "PostgreSQL $PG_MAJOR is not supported: Cargo.toml has features for those that are"
    FEATURES=(--no-default-features --features "pg$PG_MAJOR")
    PGRX_HOME=$(pgrx_home)
    export BINDIR PKGLIBDIR PGXS_SRC PG_MAJOR FEATURES PGRX_HOME
}

pgrx_knows_postgres() { grep -qsF "pg$PG_MAJOR = \"$PG_CONFIG\"" "$1/config.toml"; }

# pgrx keeps one pg_config per major version, and 'cargo pgrx init' forgets the others:
# a configuration that names another PostgreSQL is left alone, ours then lives in .work.
pgrx_home() {
    local home=${PGRX_HOME:-${HOME:-$WORK}/.pgrx}
    if [[ -f $home/config.toml ]] && ! pgrx_knows_postgres "$home"; then home=$WORK/pgrx; fi
    echo "$home"
}

# The directory for clusters, owned by SERVER_USER: .work/server, or one under TMPDIR where that
# user cannot reach the checkout or the path is too long for a Unix socket (107 bytes).
server_dir() {
    local dir=$WORK/server
    mkdir -p "$WORK"
    if [[ -f $WORK/server-dir ]]; then
        cat "$WORK/server-dir"
        return
    fi
    if ((${#dir} > 70)) || ! make_server_dir "$dir"; then
        dir=${TMPDIR:-/tmp}/hybridvec-$(printf '%s' "$REPO" | cksum | cut -d' ' -f1)
        ((${#dir} <= 70)) || die "TMPDIR is too long for a Unix socket path: ${TMPDIR:-}"
        make_server_dir "$dir" || die "user $SERVER_USER cannot use $dir"
    fi
    echo "$dir" >"$WORK/server-dir"
    echo "$dir"
}

make_server_dir() {
    if is_root; then
        id "$SERVER_USER" >/dev/null 2>&1 || die "there is no user $SERVER_USER to run a server: run 'make setup'"
        [[ -d $1 ]] || install -d -m 700 -o "$SERVER_USER" "$1"
    else
        [[ -d $1 ]] || mkdir -m 700 "$1"
    fi
    [[ $(stat -c %U "$1") == "$SERVER_USER" ]] || die "$1 belongs to $(stat -c %U "$1"), not to $SERVER_USER: remove it first"
    as_server test -w "$1" 2>/dev/null
}
