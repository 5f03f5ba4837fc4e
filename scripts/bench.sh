#!/usr/bin/env bash
# Measures hybrid against pgvector on real vectors, in a private server. Needs 'make install'. Reads from the environment:
#   DATA                a folder with meta.json, an ann-benchmarks .hdf5 file or NAME_base.fvecs; several with spaces between
#   METRIC ROWS CLIENTS l2 | cosine | ip; only the first so many rows; numbers of clients ("1 2")
#   SYSTEMS             "hnsw ivf pgvector"; a system that the server does not have is left out
#   MORE                "windows ingest archive scale": windows of time, minutes of single-row commits, archives, 10 million
#                       made rows (an hour; 30 GB of disk)
#   ONLY                1: only what MORE names
#   SECONDS_PER_POINT   2, in each of ROUNDS (3)
#   EF OUT              widths of graph searches ("10 20 40 ..."); where to write (bench/results)
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
use_postgres

data_sets() {
    local set found=''
    if [[ -n ${DATA:-} ]]; then
        tr ' ' '\n' <<<"$DATA"
        return
    fi
    for set in debminilm glove100; do
        if [[ -f $REPO/../shared/data/$set/meta.json ]]; then
            echo "$REPO/../shared/data/$set"
            found=1
        fi
    done
    [[ -n $found ]] || die "no vectors: give 'make bench DATA=FILE', an ann-benchmarks .hdf5 file, or NAME_base.fvecs with NAME_query.fvecs beside it"
}

# A virtual environment, made again when the list of requirements changes.
prepare_python() {
    local stamp=$WORK/venv/requirements.txt
    cmp -s "$REPO/bench/requirements.txt" "$stamp" && return
    say "installing Python packages into .work/venv"
    python3 -m venv --clear "$WORK/venv" || die "python3 cannot make a virtual environment (Debian: python3-venv)"
    "$WORK/venv/bin/pip" install -q --disable-pip-version-check -r "$REPO/bench/requirements.txt" ||
        die "the Python packages of bench/requirements.txt could not be installed"
    cp "$REPO/bench/requirements.txt" "$stamp"
}

# 2 GB, or a quarter of the memory where that is less.
shared_buffers() {
    awk '/^MemTotal:/ { mb = int($2 / 4096); print (mb > 2048 ? 2048 : mb) "MB" }' /proc/meminfo
}

sets=$(data_sets)
prepare_python
say "starting a private PostgreSQL $PG_MAJOR server for the measurements"
"$REPO/scripts/cluster.sh" fresh bench shared_buffers="$(shared_buffers)" max_wal_size=8GB checkpoint_timeout=30min jit=off
trap '"$REPO/scripts/cluster.sh" stop bench' EXIT
eval "$("$REPO/scripts/cluster.sh" env bench)"

options=()
[[ -z ${METRIC:-} ]] || options+=(--metric "$METRIC")
[[ -z ${ROWS:-} ]] || options+=(--rows "$ROWS")
[[ -z ${CLIENTS:-} ]] || options+=(--clients "$CLIENTS")
[[ -z ${SYSTEMS:-} ]] || options+=(--systems "$SYSTEMS")
[[ -z ${SECONDS_PER_POINT:-} ]] || options+=(--seconds "$SECONDS_PER_POINT")
[[ -z ${ROUNDS:-} ]] || options+=(--rounds "$ROUNDS")
[[ -z ${EF:-} ]] || options+=(--ef "$EF")
[[ -z ${OUT:-} ]] || options+=(--out "$OUT")
cd "$REPO"
# The million rows of MORE=ingest are the same for all sets: once.
long=()
while read -r set; do
    say "measuring $(basename "$set")"
    [[ -n ${ONLY:-} ]] || "$WORK/venv/bin/python" bench/run.py "$set" "${options[@]}"
    for more in ${MORE:-}; do
        case $more in
            scale) ;;
            ingest)
                "$WORK/venv/bin/python" bench/ingest.py "$set" "${long[@]}" ${OUT:+--out "$OUT"}
                long=(--rows 0)
                ;;
            *) "$WORK/venv/bin/python" "bench/$more.py" "$set" ${OUT:+--out "$OUT"} ;;
        esac
    done
done <<<"$sets"
if [[ " ${MORE:-} " == *" scale "* ]]; then
    say "measuring growth over rows"
    "$WORK/venv/bin/python" bench/scale.py ${OUT:+--out "$OUT"}
fi
