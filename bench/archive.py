"""Archives in a directory: export, import against a build, both again after a change of 1 % of the rows, bytes a row.

Called by scripts/bench.sh with MORE=archive. Each kind of index is built, exported, and imported again under the same
settings; then 0.5 % of the rows are deleted and as many inserted; times are of one session, of the
first import the median of three. The share of an import that is not its own is measured, too: reading the
table, and writing and logging as many bytes as the index has.
"""

import argparse
import pathlib
import shutil
import statistics
import subprocess
import time

import datasets
import report
from systems import OPCLASS, System

INDEXES = {"graph": "recent_threshold = 'infinity'", "partitions": "recent_rows = 0"}


def seconds(conn, sql):
    """The time of a statement, and its first row."""
    start = time.perf_counter()
    row = conn.execute(sql).fetchone()
    return time.perf_counter() - start, row


def stored(folder):
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def measure(system, dataset, name, options, folder):
    with system.connect(maintenance_work_mem="1GB", max_parallel_maintenance_workers=1) as conn:
        conn.execute("DROP INDEX IF EXISTS items_embedding_idx")
        create = f"CREATE INDEX items_embedding_idx ON items USING hybrid (embedding {OPCLASS[dataset.metric]}) WITH ({options})"
        start = time.perf_counter()
        conn.execute(create)
        build = time.perf_counter() - start
        size = system.index_bytes()
        before = stored(folder)
        export, row = seconds(conn, "SELECT manifest, rows FROM hybrid_export('items_embedding_idx', 'bench')")
        manifest, rows = row
        first = stored(folder) - before
        repeat = f"SELECT linked FROM hybrid_import('items_embedding_idx', 'bench', '{manifest}')"
        same = statistics.median(seconds(conn, repeat)[0] for _ in range(3))
        before = stored(folder)
        conn.execute("SELECT manifest FROM hybrid_export('items_embedding_idx', 'bench')")
        resent = stored(folder) - before
        conn.execute("DELETE FROM items WHERE id % 200 = 0")
        conn.execute("INSERT INTO items SELECT id + 10000000, embedding FROM items WHERE id % 200 = 1")
        conn.execute("VACUUM items")
        before = stored(folder)
        again, _ = seconds(conn, "SELECT manifest FROM hybrid_export('items_embedding_idx', 'bench')")
        second = stored(folder) - before
        imported, counts = seconds(conn, f"SELECT linked, inserted, dropped FROM hybrid_import('items_embedding_idx', 'bench', '{manifest}')")
        read, _ = seconds(conn, "SELECT count(embedding <-> embedding) FROM items")
        conn.execute("DROP TABLE IF EXISTS logged")
        conn.execute("CREATE TABLE logged (block bytea)")
        start = time.perf_counter()
        conn.execute("INSERT INTO logged SELECT decode(repeat('ab', 1900), 'hex') FROM generate_series(1, %s)", [size // 1960])
        write = time.perf_counter() - start
    return [
        name, f"{size / rows:.0f}", f"{first / rows:.1f}", f"{build:.2f}", f"{same:.2f}", report.ratio(build, same), f"{imported:.2f}",
        f"{read:.2f}", f"{write:.2f}", f"{export:.2f}", f"{size / 2**20 / export:.0f}", f"{again:.2f}",
        f"{resent / first:.1%}", f"{second / first:.1%}", " / ".join(f"{n:,}" for n in counts),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "results")
    args = parser.parse_args()
    dataset = datasets.load(args.data)
    system = System("archive", "hybridvec", "hybrid", "hybrid.ef_search")
    system.create(dataset)
    system.fill(dataset, len(dataset.base))
    with system.connect() as conn:
        # Beside the data directory: the server's user owns that folder.
        folder = pathlib.Path(conn.execute("SHOW data_directory").fetchone()[0]).parent / "bench-archive"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        owner = folder.parent.stat()
        subprocess.run(["chown", f"{owner.st_uid}:{owner.st_gid}", str(folder)], check=True)
        conn.execute(f"CREATE SERVER bench FOREIGN DATA WRAPPER hybrid_store OPTIONS (type 'directory', path '{folder}')")
    table = []
    for name, options in INDEXES.items():
        table.append(measure(system, dataset, name, options, folder))
        print(*table[-1], sep=" | ", flush=True)
        system.fill(dataset, len(dataset.base))
    header = [
        "index", "bytes a row", "archived bytes a row", "build s", "import s", "ratio", "import after changes s", "reading the table s",
        "writing and logging s", "export s", "export MB/s of index", "second export s", "sent after an import", "sent after changes", "linked / inserted / dropped",
    ]
    (args.out / f"{dataset.name}-archive.md").write_text(
        f"""# {dataset.name}: archives

Written by `make bench MORE=archive`, commit {report.commit()}. {len(dataset.base):,} x {dataset.dim}, {dataset.metric}; {report.machine()}.
{__doc__.split(chr(10) + chr(10), 1)[1].strip()}

{report.table(header, table)}
"""
    )
    print(f"wrote {dataset.name}-archive.md")


if __name__ == "__main__":
    main()
