"""How cost grows with the number of rows: made vectors, 100 thousand to 10 million of them, in one index with its defaults.

Called by scripts/bench.sh with MORE=scale. The vectors are made, since no set of that size is at hand: 96 dimensions, each
row a point of one of 5,000 clusters (centers normal with deviation 1, sizes by a power law), at a normal offset in 20
directions of the cluster's own and a little noise in all. Queries are made in the same way and are not in the table.
"""

import argparse
import pathlib
import time

import matplotlib.pyplot as plt
import numpy as np
import psycopg

import datasets
import report
from systems import System, copy_vectors, private_mb

DIMENSIONS = 96
CLUSTERS = 5_000
INTRINSIC = 20
QUERIES = 200
TARGET = 0.95
PROBES = (4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768)
BLOCK = 100_000


class Maker:
    """The same numbers in every run: row `i` depends on the seed and on its block only."""

    def __init__(self):
        rng = np.random.default_rng(1)
        self.centers = rng.standard_normal((CLUSTERS, DIMENSIONS), dtype=np.float32)
        self.directions = rng.standard_normal((64, INTRINSIC, DIMENSIONS), dtype=np.float32) * 0.15
        weights = 1 / np.arange(1, CLUSTERS + 1) ** 0.5
        self.weights = np.cumsum(weights / weights.sum())

    def block(self, number, rows):
        rng = np.random.default_rng((2, number))
        cluster = np.minimum(np.searchsorted(self.weights, rng.random(rows)), CLUSTERS - 1)
        offset = rng.standard_normal((rows, INTRINSIC), dtype=np.float32)
        vectors = self.centers[cluster] + 0.05 * rng.standard_normal((rows, DIMENSIONS), dtype=np.float32)
        for kind in range(64):
            of_kind = cluster % 64 == kind
            vectors[of_kind] += offset[of_kind] @ self.directions[kind]
        return vectors


class Rows:
    """What copying and exact search need of an array, made block by block."""

    def __init__(self, maker, rows):
        self.maker, self.rows, self.shape = maker, rows, (rows, DIMENSIONS)

    def __len__(self):
        return self.rows

    def blocks(self):
        for start in range(0, self.rows, BLOCK):
            # Made whole: a part of a block made by itself would be other rows.
            yield start, self.maker.block(start // BLOCK, BLOCK)[: self.rows - start]


def exact(rows, queries, k=10):
    """Ids of the nearest rows of each query by Euclidean distance."""
    best = np.full((len(queries), k), np.inf, dtype=np.float32)
    ids = np.zeros((len(queries), k), dtype=np.int64)
    for start, block in rows.blocks():
        distances = (block**2).sum(1)[None, :] - 2 * (queries @ block.T)
        near = np.argpartition(distances, k, axis=1)[:, :k]
        candidates = np.concatenate([best, np.take_along_axis(distances, near, 1)], axis=1)
        of = np.concatenate([ids, near + start], axis=1)
        order = np.argsort(candidates, axis=1)[:, :k]
        best, ids = np.take_along_axis(candidates, order, 1), np.take_along_axis(of, order, 1)
    return ids


def measure(maker, rows, seconds):
    system = System("scale", "hybridvec", "hybrid", "hybrid.probes")
    queries = maker.block(10**6, QUERIES)
    made = Rows(maker, rows)
    dataset = datasets.Dataset("scale", made, queries, "l2", None)
    system.create(dataset)
    with system.connect() as conn:
        for start, block in made.blocks():
            copy_vectors(conn, "items", block, start)
        conn.execute("VACUUM ANALYZE items")
    build, memory = system.build(dataset, "1GB")
    size = system.index_bytes()
    truth = exact(made, queries).tolist()
    system.prewarm()
    default = searched(system, dataset, truth, 0, seconds)
    # Where even the fewest lists find more, those.
    for probes in PROBES:
        fewest = searched(system, dataset, truth, probes, 0)
        if fewest["recall"] >= TARGET:
            fewest = searched(system, dataset, truth, probes, seconds)
            break
    with system.connect(**system.search_settings(0)) as conn:
        for i in range(20):
            conn.execute(f"SELECT id FROM items ORDER BY embedding <-> (SELECT embedding FROM queries WHERE id = {i}) LIMIT 10").fetchall()
        private = private_mb(conn.info.backend_pid)
    with psycopg.connect(dbname="postgres", autocommit=True) as conn:
        conn.execute(f"DROP DATABASE {system.database}")
    return {
        "rows": rows, "build": build, "build_mb": memory, "size": size, "private": private, "default": default, "fewest": fewest,
        "p50": default["p50"], "p99": default["p99"],
    }


def searched(system, dataset, truth, probes, seconds):
    """Recall with so many probes (0: the default), and its speed if `seconds` are given to that."""
    found = system.found(dataset, probes)
    recall = float(np.mean([len(set(f) & set(t)) / len(t) for f, t in zip(found, truth)]))
    qps, p50, p99 = system.throughput(dataset, probes, 1, seconds) if seconds else (0, 0, 0)
    return {"probes": probes, "recall": recall, "qps": qps, "p50": p50, "p99": p99}


def plot(points, path):
    plt.rcParams.update({"svg.hashsalt": "hybridvec", "font.size": 10})
    figure, axes = plt.subplots(figsize=(7, 4.3))
    rows = [p["rows"] for p in points]
    first = points[0]
    lines = [("build time", "build"), ("p50 of a search", "p50"), ("p99 of a search", "p99"), ("bytes", "size")]
    for label, key in lines:
        axes.plot(rows, [p[key] / first[key] for p in points], marker="o", markersize=3.5, label=label)
    axes.plot(rows, [r / rows[0] for r in rows], "--", color="gray", label="as the rows grow")
    axes.set(xscale="log", yscale="log", xlabel="rows", ylabel=f"times that of {rows[0]:,} rows")
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "results")
    args = parser.parse_args()
    maker, points, begun = Maker(), [], time.perf_counter()
    for rows in args.rows:
        points.append(measure(maker, rows, args.seconds))
        print(points[-1], flush=True)
    plot(points, args.out / "scale.svg")
    built = [
        [f"{p['rows']:,}", f"{p['build']:.1f}", f"{p['build_mb']:,.0f}", f"{p['size'] / 2**20:,.0f}", f"{p['size'] / p['rows']:.0f}",
         f"{p['private']:.0f}"]
        for p in points
    ]
    searches = [
        [f"{p['rows']:,}", s["probes"] or "default", f"{s['recall']:.4f}", f"{s['qps']:,.0f}", f"{s['p50']:.2f}", f"{s['p99']:.2f}"]
        for p in points
        for s in (p["default"], p["fewest"])
    ]
    (args.out / "scale.md").write_text(
        f"""# Growth over rows

Written by `make bench MORE=scale`, commit {report.commit()}; {report.machine()}; {(time.perf_counter() - begun) / 60:.0f} minutes.
{__doc__.split(chr(10) + chr(10), 1)[1].strip()}

Euclidean distance, index with default options (the newest 100,000 rows in a graph, the others in partitions), built with
1 GB of maintenance_work_mem; one client, first with the default number of probes, then with the fewest of a list that reach
{TARGET}. The plot shows the default.

![growth](scale.svg)

{report.table(["rows", "build s", "build MB", "index MB", "bytes a row", "backend MB"], built)}

{report.table(["rows", "probes", "recall@10", "QPS", "p50 ms", "p99 ms"], searches)}
"""
    )


if __name__ == "__main__":
    main()
