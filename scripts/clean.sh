#!/usr/bin/env bash
# Removes what the other scripts made in this checkout: private servers, work files, build output.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
if [[ -f $WORK/server-dir ]]; then
    if [[ -x $PG_CONFIG ]]; then "$REPO/scripts/cluster.sh" stop; fi
    rm -rf "$(<"$WORK/server-dir")"
fi
rm -rf "$WORK" "$REPO/target"
say "removed .work and target"
