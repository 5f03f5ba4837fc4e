#!/usr/bin/env bash
# Private PostgreSQL clusters: a Unix socket in a directory of mode 700, no TCP, no system service.
#   cluster.sh fresh NAME [SETTING=VALUE ...]   throw an old one away, create and start
#   cluster.sh start NAME | stop [NAME]         stop without a name: all of them
#   cluster.sh env NAME                         lines for eval that make psql and pgbench find it
#   cluster.sh psql NAME [ARGUMENT ...]
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
use_postgres

fresh() {
    local dir=$1 setting
    shift
    stop "$dir"
    as_server rm -rf "$dir"
    as_server mkdir -m 700 "$dir"
    as_server "$BINDIR/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >/dev/null ||
        die "initdb failed in $dir"
    {
        echo "listen_addresses = ''"
        echo "port = $PORT"
        echo "unix_socket_directories = '$dir'"
        for setting in "$@"; do echo "${setting%%=*} = '${setting#*=}'"; done
    } | as_server tee -a "$dir/data/postgresql.conf" >/dev/null
    start "$dir"
}

running() { [[ -f $1/data/postmaster.pid ]] && as_server "$BINDIR/pg_ctl" -D "$1/data" status >/dev/null; }

start() {
    [[ -f $1/data/PG_VERSION ]] || die "there is no cluster '$(basename "$1")' yet: run 'make demo' first"
    running "$1" && return
    as_server "$BINDIR/pg_ctl" -D "$1/data" -l "$1/log" -w start >/dev/null 2>&1 ||
        die "the server did not start; the end of its log: $(as_server tail -n 3 "$1/log" | tr '\n' ' ')"
}

stop() {
    if running "$1"; then as_server "$BINDIR/pg_ctl" -D "$1/data" -m fast -w stop >/dev/null; fi
}

stop_all() {
    local dir any=''
    [[ -f $WORK/server-dir ]] || return 0
    for dir in "$(server_dir)"/*/; do
        dir=${dir%/}
        if running "$dir"; then
            stop "$dir"
            say "stopped the ${dir##*/} server"
            any=1
        fi
    done
    [[ -n $any ]] || say "no private server is running"
}

command=${1:-}
name=${2:-}
case $command in
fresh) fresh "$(server_dir)/$name" "${@:3}" ;;
start) start "$(server_dir)/$name" ;;
stop) if [[ -n $name ]]; then stop "$(server_dir)/$name"; else stop_all; fi ;;
env) printf 'export PGHOST=%q PGPORT=%q PGUSER=postgres PATH=%q\n' "$(server_dir)/$name" "$PORT" "$BINDIR:$PATH" ;;
psql)
    dir=$(server_dir)/$name
    start "$dir"
    PGHOST=$dir PGPORT=$PORT PGUSER=postgres exec "$BINDIR/psql" "${@:3}"
    ;;
*) die "unknown command '$command'" ;;
esac
