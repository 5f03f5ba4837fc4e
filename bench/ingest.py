"""Single-row commits into an index, for minutes: rows per second, slowest commits, and searches along the way.

Called by scripts/bench.sh. One session inserts (four in a second run) while nobody else works, in steps; after each step
recall and speed of searches are measured with whatever is pending by then. A table without an index is the limit.
"""

import argparse
import pathlib
import tempfile

import numpy as np

import datasets
import report
from systems import INSERT, OPCLASS, System, copy_vectors

SYSTEMS_HERE = {
    "hybrid": System("ingest_hybrid", "hybridvec", "hybrid", "hybrid.ef_search"),
    "pgvector": System("ingest_pgvector", "vector", "hnsw", "hnsw.ef_search"),
    "no index": System("ingest_none", "hybridvec", None, None),
}


def prepare(system, dataset, filled):
    system.create(dataset)
    system.fill(dataset, filled)
    with system.connect(maintenance_work_mem="1GB") as conn:
        if system.method:
            conn.execute(f"CREATE INDEX items_embedding_idx ON items USING {system.method} (embedding {OPCLASS[dataset.metric]})")
        copy_vectors(conn, "pool", dataset.base[filled:], filled)
        conn.execute("ALTER TABLE pool ADD PRIMARY KEY (id)")
        conn.execute(f"CREATE SEQUENCE next_row MINVALUE 0 START {filled}")
        conn.execute("VACUUM ANALYZE pool")


def insert(system, sessions, rows):
    """Rows per second, and the 50th, 99th and 99.9th percentile and the longest of commits, in ms."""
    with tempfile.TemporaryDirectory() as folder:
        logs = pathlib.Path(folder)
        arguments = ["-t", str(rows // sessions), "-l", f"--log-prefix={logs}/tx"]
        rate = system._pgbench(INSERT, sessions, arguments)
        micros = np.concatenate([np.loadtxt(f, usecols=2, ndmin=1) for f in logs.glob("tx*")])
    return rate, [float(np.percentile(micros, p)) / 1000 for p in (50, 99, 99.9, 100)]


def search(system, dataset, rows):
    """Recall@10 among the rows so far, and queries per second of one client."""
    part = datasets.Dataset(dataset.name, dataset.base[:rows], dataset.queries[:100], dataset.metric, None)
    part.neighbors = datasets.exact_neighbors(part)
    recall = datasets.recall(part, system.found(part, 80))
    return recall, system.throughput(part, 80, 1, 2)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "results")
    args = parser.parse_args()
    dataset = datasets.load(args.data)
    filled = len(dataset.base) // 2
    table = []
    for name, system in SYSTEMS_HERE.items():
        if not system.available():
            continue
        prepare(system, dataset, filled)
        slow = name == "pgvector"
        step = (2_000 if slow else len(dataset.base) - filled) // args.steps
        at = filled
        for n in range(args.steps):
            sessions = 1 if n < args.steps // 2 else 4
            rate, (p50, p99, p999, longest) = insert(system, sessions, step // 4 * 4)
            at += step // 4 * 4
            recall, qps = search(system, dataset, at) if system.method else (None, None)
            table.append(
                [name, sessions, f"{at:,}", f"{rate:,.0f}", f"{p50:.2f}", f"{p99:.2f}", f"{p999:.2f}", f"{longest:.0f}",
                 report.number(recall, "{:.4f}"), report.number(qps)]
            )
            print(*table[-1], sep=" | ", flush=True)
    header = ["index", "sessions", "rows then", "rows/s", "p50 ms", "p99 ms", "p99.9 ms", "longest ms", "recall@10", "QPS"]
    page = args.out / f"{dataset.name}-ingest.md"
    page.write_text(
        f"""# {dataset.name}: single-row commits

Written by `make bench`, commit {report.commit()}. {len(dataset.base):,} x {dataset.dim}, {dataset.metric}, half of them there
before; {report.machine()}. {__doc__.split(chr(10) + chr(10), 1)[1].strip()} Searches at ef_search = 80 with one client.

{report.table(header, table)}
"""
    )
    print(f"wrote {page.name}")


if __name__ == "__main__":
    main()
