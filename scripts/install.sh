#!/usr/bin/env bash
# Builds the extension for release and installs it into the PostgreSQL of PG_CONFIG.
#   install.sh build | install.sh install
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
use_postgres
cd "$REPO"

# The same cargo invocation as the installation makes, so that the two share their artefacts.
if [[ ${1:-install} == build ]]; then
    say "building the extension (release)"
    cargo pgrx package --pg-config "$PG_CONFIG" "${FEATURES[@]}" || die "build failed"
    exit
fi

say "building the extension (release) and installing it for $("$PG_CONFIG" --version)"
sudo=()
if ! [[ -w $PKGLIBDIR && -w $("$PG_CONFIG" --sharedir)/extension ]]; then
    command -v sudo >/dev/null || die "$PKGLIBDIR is not writable for $(id -un), and there is no sudo"
    sudo=(--sudo)
    # 'sudo cp' would write into the file that a running server has mapped.
    sudo rm -f "$PKGLIBDIR/$EXTENSION.so"
fi
cargo pgrx install --release --pg-config "$PG_CONFIG" "${FEATURES[@]}" "${sudo[@]}" || die "build or installation failed"
