#!/usr/bin/env bash
# Runs test stages and sums them up; the last line is 'N passed, N failed'.
#   test.sh [STAGE ...]      fmt clippy shell unit server install regress isolation tap crash
# Without arguments: all of them but crash. Needs 'make setup'.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
use_postgres
cd "$REPO"

ALL=(fmt clippy shell unit server install regress isolation tap)
LOGS=$WORK/test-logs
SUMMARY=()
PASSED=0
FAILED=0
mkdir -p "$LOGS"

# --- stages: each prints what it does and returns non-zero if anything failed -------------------

stage_fmt() { cargo fmt --all --check; }

stage_clippy() { cargo clippy --workspace --all-targets "${FEATURES[@]}" -- -D warnings; }

stage_shell() {
    command -v shellcheck >/dev/null || skip "shellcheck is not installed"
    shellcheck --external-sources --source-path=SCRIPTDIR scripts/*.sh .ci/run
}

# Crates that know nothing of PostgreSQL.
stage_unit() { cargo test --workspace --exclude "$EXTENSION"; }

# #[pg_test] functions, inside a server. Installs a debug build with the tests in it.
stage_server() {
    grep -rqs 'pg_test\]' src pg_test/in_server || skip "no #[pg_test] yet"
    local data runas=()
    data=$(server_dir)/pgrx
    if is_root; then
        runas=(--runas "$SERVER_USER")
    elif ! [[ -w $PKGLIBDIR ]]; then
        runas=(--runas "$SERVER_USER") # ourselves: with --runas pgrx installs through sudo
    fi
    as_root_if_needed rm -f "$PKGLIBDIR/$EXTENSION.so"
    USER=${USER:-$(id -un)} cargo pgrx test "${FEATURES[@]}" --pgdata "$data" "${runas[@]}" "pg$PG_MAJOR"
}

stage_install() { scripts/install.sh install; }

stage_regress() {
    have 'pg_test/regress/sql/*.sql'
    against_server regress pg_regress pg_test/regress sql
}

stage_isolation() {
    have 'pg_test/isolation/specs/*.spec'
    against_server isolation pg_isolation_regress pg_test/isolation spec
}

stage_tap() {
    have 'pg_test/t/*.pl'
    local tests
    mapfile -t tests < <(find pg_test/t -name '*.pl' | sort)
    prove_as_server "${tests[@]}"
}

stage_crash() {
    have 'pg_test/t/*crash*.pl'
    local tests
    mapfile -t tests < <(find pg_test/t -name '*crash*.pl' | sort)
    CRASH_ROUNDS=${COUNT:-50} prove_as_server "${tests[@]}"
}

# --- what they share ---------------------------------------------------------------------------

skip() {
    echo "skipped: $*"
    exit 77
}

have() { compgen -G "$1" >/dev/null || skip "no $1 yet"; }

as_root_if_needed() { if [[ -w $PKGLIBDIR ]]; then "$@"; else sudo "$@"; fi; }

# The schedule where there is one, else every test by name.
tests_of() {
    if [[ -f $1/schedule ]]; then
        echo "--schedule=$REPO/$1/schedule"
    else
        find "$1" -name "*.$2" -printf '%f\n' | sed "s/\.$2\$//" | sort
    fi
}

# Runs a program (pg_regress, pg_isolation_regress) on the tests of a folder against a fresh server; on failure shows the differences.
against_server() {
    local name=$1 program=$2 input=$3 out=$WORK/$1 status=0 dir=$PGXS_SRC/test/regress tests
    [[ $program == pg_regress ]] || dir=$PGXS_SRC/test/isolation
    [[ -x $dir/$program ]] || skip "$dir/$program is missing (Debian: postgresql-server-dev-$PG_MAJOR)"
    mapfile -t tests < <(tests_of "$input" "$4")
    rm -rf "$out" && mkdir -p "$out"
    scripts/cluster.sh fresh "$name" fsync=off max_prepared_transactions=10 timezone=UTC
    eval "$(scripts/cluster.sh env "$name")"
    "$dir/$program" --bindir="$BINDIR" --host="$PGHOST" --port="$PGPORT" --user=postgres \
        --dbname="${name}_$EXTENSION" --inputdir="$REPO/$input" --outputdir="$out" \
        --load-extension="$EXTENSION" "${tests[@]}" || status=$?
    if ((status)) && [[ -s $out/regression.diffs ]]; then
        echo "--- $out/regression.diffs (first 150 lines)"
        head -n 150 "$out/regression.diffs"
    fi
    scripts/cluster.sh stop "$name"
    return "$status"
}

# TAP tests start servers of their own, so they run as SERVER_USER, on a copy that it can read.
prove_as_server() {
    perl -MIPC::Run -e1 2>/dev/null || skip "Perl's IPC::Run is missing (Debian: libipc-run-perl)"
    [[ -d $PGXS_SRC/test/perl/PostgreSQL ]] || skip "PostgreSQL's Perl test modules are missing in $PGXS_SRC/test/perl"
    local dir status=0
    dir=$(server_dir)/tap
    as_server rm -rf "$dir"
    as_server mkdir "$dir"
    tar -C "$REPO" -c pg_test | as_server tar -C "$dir" -x
    # Stores to test against: the server's user may not be able to reach the checkout.
    cargo build -p emulators
    tar -C "${CARGO_TARGET_DIR:-$REPO/target}/debug" -c emulators | as_server tar -C "$dir" -x
    as_server env -C "$dir" PATH="$BINDIR:$PATH" TESTDIR="$dir" TESTDATADIR="$dir/tmp_check" \
        TESTLOGDIR="$dir/tmp_check/log" PG_REGRESS="$PGXS_SRC/test/regress/pg_regress" \
        PERL5LIB="$PGXS_SRC/test/perl" TMPDIR=/tmp EMULATORS="$dir/emulators" CRASH_ROUNDS="${CRASH_ROUNDS:-5}" SEED="${SEED:-}" \
        prove --jobs 2 --failures --timer "$@" || status=$?
    ((status == 0)) || show_tap_logs "$dir"
    return "$status"
}

# The logs of tests that failed or did not get to their plan.
show_tap_logs() {
    local log
    while read -r log; do
        if as_server grep -q '\bnot ok ' "$log" || ! as_server grep -qE '1\.\.[0-9]+$' "$log"; then
            echo "--- $log (last 40 lines)"
            as_server tail -n 40 "$log"
        fi
    done < <(as_server find "$1/tmp_check/log" -name 'regress_log_*' 2>/dev/null | sort)
}

# Counts tests in what a stage printed: cargo test, pg_regress and prove each say it their way;
# a stage that says nothing counts as one test.
count() {
    awk -v status="$2" '
        { gsub(/\033\[[0-9;]*m/, "") }
        /^test result: / { ok += $4; bad += $6; next }
        / \.\.\. ok +[0-9]/ { ok++; next }
        / \.\.\. FAILED +[0-9(]/ { bad++; next }
        /^ok [0-9]+ .* ms$/ { ok++; next } # pg_regress from version 16 on
        /^not ok [0-9]+ .* ms$/ { bad++; next }
        /^Files=[0-9]+, Tests=[0-9]+/ { split($2, t, /[=,]/); ok += t[2] }
        /Failed [0-9]+\/[0-9]+ subtests/ { match($0, /Failed [0-9]+/); n = substr($0, RSTART + 7, RLENGTH - 7); bad += n; ok -= n }
        END {
            if (status != 0 && bad == 0) bad = 1
            if (status == 0 && ok == 0) ok = 1
            print (ok < 0 ? 0 : ok) + 0, bad + 0
        }' "$1"
}

run_stage() {
    local name=$1 log=$LOGS/$1.log status=0 start=$SECONDS ok bad line
    printf '\n%s==== %s %s\n' "$BOLD" "$name" "$PLAIN"
    ("stage_$name") </dev/null 2>&1 | tee "$log" || status=${PIPESTATUS[0]}
    if ((status == 77)); then
        SUMMARY+=("$(printf '%-10s skipped' "$name")")
        return
    fi
    read -r ok bad < <(count "$log" "$status")
    PASSED=$((PASSED + ok)) FAILED=$((FAILED + bad))
    line=$(printf '%-10s %5d passed %5d failed %6d s' "$name" "$ok" "$bad" $((SECONDS - start)))
    ((bad)) && line="$RED$line   ($log)$PLAIN"
    SUMMARY+=("$line")
}

# ----------------------------------------------------------------------------------------------

stages=("$@")
((${#stages[@]})) || stages=("${ALL[@]}")
for stage in "${stages[@]}"; do
    declare -F "stage_$stage" >/dev/null || die "no stage '$stage'; there are: ${ALL[*]} crash"
done
for stage in "${stages[@]}"; do run_stage "$stage"; done

printf '\n%s==== summary %s\n' "$BOLD" "$PLAIN"
printf '%s\n' "${SUMMARY[@]}"
echo "$PASSED passed, $FAILED failed"
((FAILED == 0))
