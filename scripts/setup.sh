#!/usr/bin/env bash
# Brings a Debian 12 machine to where everything builds and runs. Changes nothing when nothing is missing.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

PGRX_VERSION=$(sed -nE 's/^pgrx = "=([0-9.]+)"$/\1/p' "$REPO/Cargo.toml")
RUST_VERSION=$(sed -nE 's/^rust-version = "([0-9.]+)"$/\1/p' "$REPO/Cargo.toml")
TOOLS=(build-essential clang libclang-dev pkg-config sudo libipc-run-perl python3 python3-venv)
SERVER=(postgresql-15 postgresql-server-dev-15)

missing_packages() {
    local package
    for package in "$@"; do
        [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || echo "$package"
    done
}

check_rust() {
    if [[ -d ${HOME:-}/.cargo/bin ]]; then PATH=$PATH:$HOME/.cargo/bin; fi
    command -v cargo >/dev/null || die "Rust $RUST_VERSION or newer is missing: install it with rustup, then run this again"
    local have
    have=$(cd "$REPO" && rustc --version | cut -d' ' -f2)
    [[ $(printf '%s\n' "$RUST_VERSION" "$have" | sort -V | head -n 1) == "$RUST_VERSION" ]] ||
        die "Rust $RUST_VERSION or newer is needed, this is $have: run 'rustup update stable'"
}

install_packages() {
    local wanted=("${TOOLS[@]}") missing
    [[ $PG_CONFIG == /usr/lib/postgresql/15/* ]] && wanted+=("${SERVER[@]}")
    if ! command -v dpkg-query >/dev/null; then
        say "not a Debian system: expecting what these packages hold to be there: ${wanted[*]}"
        return
    fi
    mapfile -t missing < <(missing_packages "${wanted[@]}")
    ((${#missing[@]})) || return 0
    is_root || command -v sudo >/dev/null || die "missing packages: ${missing[*]}; run this as root, or install sudo"
    say "installing Debian packages: ${missing[*]}"
    apt_quiet update
    apt_install "${missing[@]}"
}

# A PostgreSQL that we install must not create and start the cluster 'main', but one that is there stays as it is.
apt_install() {
    local quiet=/etc/postgresql-common/createcluster.d/hybridvec-setup.conf status=0
    if [[ " $* " == *" postgresql-15 "* ]]; then
        as_root mkdir -p "${quiet%/*}"
        echo 'create_main_cluster = false' | as_root tee "$quiet" >/dev/null
    fi
    apt_quiet install -y --no-install-recommends "$@" || status=$?
    as_root rm -f "$quiet"
    return "$status"
}

apt_quiet() {
    local log
    log=$(mktemp)
    if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get -q "$@" </dev/null >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        die "'apt-get $1' failed (log: $log)"
    fi
    rm -f "$log"
}

install_cargo_pgrx() {
    [[ $(cargo pgrx --version 2>/dev/null) == "cargo-pgrx $PGRX_VERSION" ]] && return
    say "installing cargo-pgrx $PGRX_VERSION (compiles for 3 to 5 minutes)"
    CARGO_TARGET_DIR='' cargo install cargo-pgrx --version "=$PGRX_VERSION" --locked ||
        die "cargo-pgrx $PGRX_VERSION could not be installed"
}

init_pgrx() {
    use_postgres
    [[ -f $("$PG_CONFIG" --includedir-server)/postgres.h ]] ||
        die "PostgreSQL's server headers are missing for $PG_CONFIG (Debian: postgresql-server-dev-$PG_MAJOR)"
    pgrx_knows_postgres "$PGRX_HOME" && return
    say "telling pgrx about PostgreSQL $PG_MAJOR ($PG_CONFIG), in $PGRX_HOME"
    mkdir -p "$PGRX_HOME"
    cargo pgrx init --no-run "--pg$PG_MAJOR" "$PG_CONFIG" >/dev/null || die "cargo pgrx init failed"
}

install_packages
check_rust
install_cargo_pgrx
init_pgrx
say "set up: $("$PG_CONFIG" --version), $(rustc --version | cut -d' ' -f1-2), cargo-pgrx $PGRX_VERSION"
