"""Single-row commits into an index: rows per second, slowest commits, and searches along the way.

Called by scripts/bench.sh with MORE=ingest. First side by side, into an index that holds half of the rows, from one session
and from four, with commits that wait for the disk and with commits that do not (synchronous_commit = off); a table without
an index is the limit. Then a million made rows (as in MORE=scale) from one session and from four, with default options, so
that rows are flushed, linked, sealed and moved to partitions meanwhile; after each quarter recall and speed of searches are
measured with whatever is pending by then, and again when nothing is.
"""

import argparse
import pathlib
import tempfile
import time

import numpy as np

import datasets
import report
import scale
from systems import INSERT, OPCLASS, System, copy_vectors

SYSTEMS_HERE = {
    "no index": System("ingest_none", "hybridvec", None, None),
    "hybrid": System("ingest_hybrid", "hybridvec", "hybrid", "hybrid.ef_search"),
    "pgvector": System("ingest_pgvector", "vector", "hnsw", "hnsw.ef_search"),
}
WIDTH = 80
QUIET_FOR = 600


def prepare(system, dataset, filled):
    with system.connect(maintenance_work_mem="1GB") as conn:
        if system.method:
            conn.execute(f"CREATE INDEX items_embedding_idx ON items USING {system.method} (embedding {OPCLASS[dataset.metric]})")
        conn.execute("ALTER TABLE pool ADD PRIMARY KEY (id)")
        conn.execute(f"CREATE SEQUENCE next_row MINVALUE 0 START {filled}")
        conn.execute("VACUUM ANALYZE pool")
        conn.execute("CHECKPOINT")


def insert(system, sessions, rows, **settings):
    """Rows per second, and the 50th, 99th and 99.9th percentile and the longest of commits, in ms."""
    with tempfile.TemporaryDirectory() as folder:
        logs = pathlib.Path(folder)
        arguments = ["-t", str(rows // sessions), "-l", f"--log-prefix={logs}/tx"]
        rate = system._pgbench(INSERT, sessions, arguments, **settings)
        micros = np.concatenate([np.loadtxt(f, usecols=2, ndmin=1) for f in logs.glob("tx*")])
    return rate, [float(np.percentile(micros, p)) / 1000 for p in (50, 99, 99.9, 100)]


def times(p):
    return [f"{p[0]:.2f}", f"{p[1]:.2f}", f"{p[2]:.2f}", f"{p[3]:.0f}"]


def compare(dataset):
    """Rows of the first table: for each number of sessions and way to commit, each system."""
    filled = len(dataset.base) // 2
    systems = {name: system for name, system in SYSTEMS_HERE.items() if system.available()}
    for system in systems.values():
        system.create(dataset)
        system.fill(dataset, filled)
        with system.connect() as conn:
            copy_vectors(conn, "pool", dataset.base[filled:], filled)
        prepare(system, dataset, filled)
    rows = []
    for sessions in (1, 4):
        for synchronous in ("on", "off"):
            of = {}
            for name, system in systems.items():
                # A quarter of the pool each; pgvector would take minutes for that.
                count = 1_000 if name == "pgvector" else (len(dataset.base) - filled) // 4
                of[name] = insert(system, sessions, count // sessions * sessions, synchronous_commit=synchronous)
            for name, (rate, p) in of.items():
                theirs = of.get("pgvector")
                rows.append(
                    [name, sessions, synchronous, f"{rate:,.0f}", f"{rate / of['no index'][0]:.0%}",
                     report.ratio(rate, theirs and theirs[0]), *times(p)]
                )
                print(*rows[-1], sep=" | ", flush=True)
    return rows


def wait_until_quiet(system):
    """Seconds until no row is pending and no worker is at it."""
    start = time.perf_counter()
    quiet = "SELECT count(*) FROM hybrid_segments('items_embedding_idx') WHERE kind = 'pending' AND rows >= 1000"
    busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'hybridvec: %' AND pid <> pg_backend_pid()"
    with system.connect() as conn:
        while time.perf_counter() - start < QUIET_FOR:
            if conn.execute(f"SELECT ({quiet}) + ({busy})").fetchone()[0] == 0:
                break
            time.sleep(0.5)
    return time.perf_counter() - start


def pending(system):
    with system.connect() as conn:
        return conn.execute(
            "SELECT coalesce(sum(rows) FILTER (WHERE kind = 'pending'), 0), coalesce(sum(rows) FILTER (WHERE kind = 'hnsw'), 0),"
            " coalesce(sum(rows) FILTER (WHERE kind = 'ivf'), 0) FROM hybrid_segments('items_embedding_idx')"
        ).fetchone()


def search(system, maker, rows):
    """Recall@10 among the rows so far, and queries per second of one client."""
    queries = maker.block(10**6, scale.QUERIES)
    dataset = datasets.Dataset("ingest", scale.Rows(maker, rows), queries, "l2", None)
    truth = scale.exact(dataset.base, queries).tolist()
    found = system.found(dataset, WIDTH)
    recall = float(np.mean([len(set(f) & set(t)) / len(t) for f, t in zip(found, truth)]))
    return recall, system.throughput(dataset, WIDTH, 1, 3)[0]


def sustained(rows, first, steps=4):
    """Rows of the second table."""
    maker = scale.Maker()
    made = scale.Rows(maker, first + rows)
    system = System("ingest_long", "hybridvec", "hybrid", "hybrid.ef_search")
    system.create(datasets.Dataset("ingest", made, maker.block(10**6, scale.QUERIES), "l2", None))
    with system.connect() as conn:
        for start, block in made.blocks():
            here = max(0, min(len(block), first - start))
            copy_vectors(conn, "items", block[:here], start)
            copy_vectors(conn, "pool", block[here:], start + here)
        conn.execute("VACUUM ANALYZE items")
    prepare(system, datasets.Dataset("ingest", made, None, "l2", None), first)
    table, at, step = [], first, rows // steps
    for n in range(steps):
        sessions = 1 if n < steps // 2 else 4
        rate, p = insert(system, sessions, step // sessions * sessions)
        at += step // sessions * sessions
        kinds = pending(system)
        recall, qps = search(system, maker, at)
        table.append([sessions, f"{at:,}", f"{rate:,.0f}", *times(p), " / ".join(f"{k:,}" for k in kinds), f"{recall:.4f}", report.number(qps)])
        print(*table[-1], sep=" | ", flush=True)
    waited = wait_until_quiet(system)
    recall, qps = search(system, maker, at)
    kinds = " / ".join(f"{k:,}" for k in pending(system))
    table.append(["-", f"{waited:.0f} s later", "", "", "", "", "", kinds, f"{recall:.4f}", report.number(qps)])
    print(*table[-1], sep=" | ", flush=True)
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the long run; 0: none")
    parser.add_argument("--first", type=int, default=100_000, help="rows that it starts with")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "results")
    args = parser.parse_args()
    dataset = datasets.load(args.data)
    short = report.table(
        ["index", "sessions", "synchronous_commit", "rows/s", "of no index", "times pgvector", "p50 ms", "p99 ms", "p99.9 ms", "longest ms"],
        compare(dataset),
    )
    long = ""
    if args.rows:
        header = ["sessions", "rows then", "rows/s", "p50 ms", "p99 ms", "p99.9 ms", "longest ms", "pending / graph / lists", "recall@10", "QPS"]
        long = f"""
{args.rows:,} rows of {scale.DIMENSIONS} dimensions, Euclidean distance, after the first {args.first:,}:

{report.table(header, sustained(args.rows, args.first))}
"""
    page = args.out / f"{dataset.name}-ingest.md"
    page.write_text(
        f"""# {dataset.name}: single-row commits

Written by `make bench MORE=ingest`, commit {report.commit()}. {len(dataset.base):,} x {dataset.dim}, {dataset.metric};
{report.machine()}. {__doc__.split(chr(10) + chr(10), 1)[1].strip()} Searches at ef_search = {WIDTH}, one client.

{short}
{long}"""
    )
    print(f"wrote {page.name}")


if __name__ == "__main__":
    main()
