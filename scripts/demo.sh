#!/usr/bin/env bash
# Semantic search on real texts, in a private server made anew. Needs 'make install'.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
use_postgres

SHOWN=5 # queries to print, of 20
MIN_RECALL=0.95
sql() { psql -X -q -v ON_ERROR_STOP=1 -d demo "$@"; }
value() { sql -At "$@"; }
seconds_since() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f s", to - from }'; }
title() { printf '\n%s%s%s\n' "$BOLD" "$*" "$PLAIN"; }

start_server() {
    say "starting a private PostgreSQL $PG_MAJOR server"
    "$REPO/scripts/cluster.sh" fresh demo fsync=off max_wal_size=1GB
    eval "$("$REPO/scripts/cluster.sh" env demo)"
    createdb demo
}

load() {
    local from=$EPOCHREALTIME
    sql -f "$REPO/demo/tables.sql"
    python3 "$REPO/demo/load.py" items | sql -c 'COPY items (id, category, text, embedding) FROM STDIN (FORMAT binary)'
    python3 "$REPO/demo/load.py" queries | sql -c 'COPY queries FROM STDIN (FORMAT binary)'
    sql -f "$REPO/demo/year.sql" -c 'VACUUM FULL ANALYZE items' -c 'ANALYZE queries'
    say "loaded $(value -c 'SELECT count(*) FROM items') texts of a year with embeddings of 384 numbers in $(seconds_since "$from")"
}

build_index() {
    local from=$EPOCHREALTIME
    sql -f "$REPO/demo/index.sql"
    say "$(tr -d ';\n' <"$REPO/demo/index.sql")"
    say "built in $(seconds_since "$from"), $(value -c "SELECT pg_size_pretty(pg_relation_size('items_embedding_idx'))")"
}

show() { sql -P footer=off -f "$REPO/demo/$1.sql" | sed 's/^/  /; s/ *$//' | cut -c 1-130; }

check_segments() {
    title "Recent rows lie in a graph (hnsw), old ones in partitions (ivf)"
    show segments
}

check_window() {
    title "Nearest to the first query, seen between 200 and 150 days ago"
    show window
    local plan
    plan=$(value -f "$REPO/demo/window_plan.sql")
    printf '\n  %s\n' "${plan//$'\n'/$'\n'  }"
    grep -q 'Index Cond: ((seen_at >=' <<<"$plan" || die "the condition on seen_at was not evaluated inside the index"
}

check_migration() {
    title "Rows that keep coming: from the list into a graph, from graphs into partitions, partitions together"
    sql -f "$REPO/demo/stream.sql"
    show history
    local found
    found=$(value -f "$REPO/demo/stream_search.sql")
    echo "  $found rows are found as their own nearest"
    awk -v found="$found" 'BEGIN { split(found, n, " of "); exit !(n[1] >= 0.99 * n[2]) }' || die "rows were lost on the way"
}

search() {
    local query
    for ((query = 1; query <= SHOWN; query++)); do
        title "What is nearest to:  $(value -c "SELECT left(text, 90) FROM queries WHERE id = $query")"
        sql -At -F $'\t' -v query="$query" -f "$REPO/demo/search.sql" |
            while IFS=$'\t' read -r distance category text; do
                printf '  %s%s  %-10s%s %s\n' "$DIM" "$distance" "$category" "$PLAIN" "${text:0:95}"
            done
    done
}

check_plan() {
    local plan
    plan=$(value -f "$REPO/demo/plan.sql")
    title "The plan"
    printf '  %s\n' "${plan//$'\n'/$'\n'  }"
    grep -q 'Index Scan using items_embedding_idx' <<<"$plan" || die "the planner did not use the index"
}

check_recall() {
    local recall
    recall=$(value -f "$REPO/demo/recall.sql")
    title "Recall"
    echo "  the index finds $recall of the 10 true nearest of each of $(value -c 'SELECT count(*) FROM queries') queries (1 = all; compared with an exact scan)"
    if [[ $(value -c "SELECT to_regproc('hybrid_recall') IS NOT NULL") == t ]]; then
        echo "  and by hybrid_recall('items_embedding_idx'):"
        sql -x -P border=0 -c "SELECT * FROM hybrid_recall('items_embedding_idx')" | sed -n 's/^\([a-z]\)/    \1/p'
    fi
    awk -v have="$recall" -v need="$MIN_RECALL" 'BEGIN { exit !(have >= need) }' ||
        die "recall $recall is below $MIN_RECALL"
}

# A directory as store, shared with a second server.
make_store() {
    ATTIC=$(server_dir)/attic
    as_server rm -rf "$ATTIC"
    as_server mkdir -m 700 "$ATTIC"
    sql -c "CREATE SERVER attic FOREIGN DATA WRAPPER hybrid_store OPTIONS (type 'directory', path '$ATTIC')"
}

check_archive() {
    local manifest from linked
    make_store
    title "Export the structure of the index into a directory, drop the index, and have it back without a rebuild"
    sql -P footer=off -f "$REPO/demo/export.sql" | sed 's/^/  /; s/ *$//'
    manifest=$(value -c "SELECT manifest FROM hybrid_archives ORDER BY created_at DESC LIMIT 1")
    sql -c 'DROP INDEX items_embedding_idx'
    from=$EPOCHREALTIME
    linked=$(sed "s/)[[:space:]]*;[[:space:]]*$/, source = 'attic $manifest');/" "$REPO/demo/index.sql" | sql 2>&1)
    echo "  ${linked//*INFO:  /}"
    echo "  made again in $(seconds_since "$from")"
    [[ $linked == *' 0 inserted, 0 dropped'* ]] || die "the index was not made of the archive: $linked"
}

check_restore() {
    local backup restored recall
    title "Back the table up, and restore it on a second server"
    sql -P footer=off -f "$REPO/demo/backup.sql" | sed 's/^/  /; s/ *$//'
    backup=$(value -c "SELECT manifest FROM hybrid_archives WHERE kind = 'backup'")
    value -c 'COPY queries TO STDOUT' >"$WORK/demo-queries"
    (
        "$REPO/scripts/cluster.sh" fresh demo2 fsync=off max_wal_size=1GB
        eval "$("$REPO/scripts/cluster.sh" env demo2)"
        createdb demo
        sql -c 'CREATE EXTENSION hybridvec' -c 'CREATE TABLE queries (id int, text text, embedding vector(384))' \
            -c "CREATE SERVER attic FOREIGN DATA WRAPPER hybrid_store OPTIONS (type 'directory', path '$ATTIC')"
        sql -c 'COPY queries FROM STDIN' <"$WORK/demo-queries"
        restored=$(value -c "SELECT rows || ' rows, ' || linked || ' of them linked in ' || indexes || ' index' FROM hybrid_restore('attic', '$backup')")
        sql -c 'ANALYZE'
        recall=$(value -f "$REPO/demo/recall.sql")
        echo "  restored: $restored; recall $recall"
        awk -v have="$recall" -v need="$MIN_RECALL" 'BEGIN { exit !(have >= need) }' || die "recall $recall is below $MIN_RECALL"
    ) || exit 1
    "$REPO/scripts/cluster.sh" stop demo2
}

start_server
load
build_index
check_segments
search
check_plan
check_recall
check_window
check_migration
check_archive
check_restore

title "The server is still running"
echo "  make psql    connect to it (tables: items, queries, stream)"
echo "  make stop    stop it"
