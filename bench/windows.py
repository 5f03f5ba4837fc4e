"""Searches in a window of time: hybrid with the time as a key column, pgvector with an iterative scan, btree and sort.

Called by scripts/bench.sh. The rows arrive in order of their time, evenly over a year. Windows are of 1, 10 and 50 % of
it and lie anywhere. What btree and sort return is exact: recall is against that.
"""

import argparse
import pathlib
import random
import statistics

import datasets
import report
from systems import OPCLASS, OPERATOR, SYSTEMS, System, copy_vectors

SHARES = (0.001, 0.01, 0.1, 0.5)
YEAR = 365 * 86400
START = "timestamptz '2025-01-01 00:00:00+00'"

HYBRID = System("windows_hybrid", "hybridvec", "hybrid", "hybrid.ef_search")
PGVECTOR = System("windows_pgvector", "vector", "hnsw", "hnsw.ef_search")
BTREE = System("windows_btree", "hybridvec", "btree", None)


def prepare(system, dataset):
    system.create(dataset)
    with system.connect(maintenance_work_mem="1GB") as conn:
        copy_vectors(conn, "pool", dataset.base)
        conn.execute("ALTER TABLE items ADD COLUMN at timestamptz")
        conn.execute(
            f"INSERT INTO items (id, embedding, at) SELECT id, embedding, {START} + id * interval '1 second' * %s FROM pool ORDER BY id",
            [YEAR / len(dataset.base)],
        )
        conn.execute("DROP TABLE pool")
        opclass = OPCLASS[dataset.metric]
        if system is HYBRID:
            # As of the last row, a month is recent and the other months are old.
            age = conn.execute(f"SELECT extract(day FROM now() - {START} - interval '335 days')::int").fetchone()[0]
            conn.execute(
                f"CREATE INDEX items_embedding_idx ON items USING hybrid (embedding {opclass}, at) WITH (recent_threshold = '{age} days')"
            )
        elif system is PGVECTOR:
            conn.execute(f"CREATE INDEX items_embedding_idx ON items USING hnsw (embedding {opclass})")
        else:
            conn.execute("CREATE INDEX items_embedding_idx ON items (at)")
        conn.execute("VACUUM ANALYZE items")
    system.prewarm()


def sql(dataset, share, query, start):
    """`query` and `start` (a second of the year) are numbers or pgbench variables."""
    begin = f"{START} + {start} * interval '1 second'"
    end = f"{START} + ({start} + {int(YEAR * share)}) * interval '1 second'"
    vector = f"(SELECT embedding FROM queries WHERE id = {query})"
    return (
        f"SELECT id FROM items WHERE at >= {begin} AND at < {end}"
        f" ORDER BY embedding {OPERATOR[dataset.metric]} {vector} LIMIT 10"
    )


def settings(system):
    if system is PGVECTOR:
        return {"hnsw.iterative_scan": "strict_order", "hnsw.max_scan_tuples": 10**7, "enable_seqscan": "off"}
    return {"enable_seqscan": "off"}


def found(system, dataset, share, cases):
    with system.connect(**settings(system)) as conn:
        return [[r[0] for r in conn.execute(sql(dataset, share, q, s))] for q, s in cases]


def measure(system, dataset, share, seconds, rounds):
    last = YEAR - int(YEAR * share)
    script = f"\\set q random(0, {len(dataset.queries) - 1})\n\\set s random(0, {last})\n{sql(dataset, share, ':q', ':s')};\n"
    return statistics.median(system._pgbench(script, 1, ["-T", str(seconds)], **settings(system)) for _ in range(rounds))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "results")
    args = parser.parse_args()
    dataset = datasets.load(args.data, None, args.rows)
    systems = [HYBRID, BTREE] + ([PGVECTOR] if SYSTEMS["pgvector"].available() else [])
    for system in systems:
        prepare(system, dataset)
    rows = []
    for share in SHARES:
        rng = random.Random(1)
        cases = [(q, rng.randrange(YEAR - int(YEAR * share))) for q in range(min(200, len(dataset.queries)))]
        truth = found(BTREE, dataset, share, cases)
        row = [f"{share:.1%}", f"{len(dataset.base) * share:,.0f}"]
        for system in systems:
            hits = found(system, dataset, share, cases)
            recall = sum(len(set(h) & set(t)) for h, t in zip(hits, truth)) / sum(len(t) for t in truth)
            row.append(f"{measure(system, dataset, share, args.seconds, args.rounds):,.0f} at {recall:.4f}")
        rows.append(row)
        print("windows of", row[0], "of the rows:", ", ".join(f"{s.name} {v}" for s, v in zip(systems, row[2:])), flush=True)
    names = {HYBRID: "hybrid, key column", BTREE: "btree and sort", PGVECTOR: "pgvector, iterative scan"}
    page = args.out / f"{dataset.name}-windows.md"
    page.write_text(
        f"""# {dataset.name}: searches in a window of time

Written by `make bench`, commit {report.commit()}. {len(dataset.base):,} x {dataset.dim}, {dataset.metric}; {report.machine()}.
{__doc__.split(chr(10) + chr(10), 1)[1].strip()}

Queries per second of one client, and recall@10:

{report.table(["window", "rows", *(names[s] for s in systems)], rows)}
"""
    )
    print(f"wrote {page.name}")


if __name__ == "__main__":
    main()
