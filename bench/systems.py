"""The two systems under test, each in a database of its own on one server, and what is measured of them."""

import contextlib
import os
import pathlib
import struct
import subprocess
import tempfile
import threading
import time

import numpy as np
import psycopg

OPERATOR = {"l2": "<->", "cosine": "<=>", "ip": "<#>"}
OPCLASS = {"l2": "vector_l2_ops", "cosine": "vector_cosine_ops", "ip": "vector_ip_ops"}
HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
INSERT = "INSERT INTO items SELECT id, embedding FROM pool WHERE id = (SELECT nextval('next_row'));\n"


class System:
    """`setting` is what the sweep turns, from `first` on; `options` those of the index, `session` those of a search."""

    def __init__(self, name, extension, method, setting, options="", sweep=None, session=None):
        self.name, self.extension, self.method, self.setting = name, extension, method, setting
        self.options = "m = 16, ef_construction = 64" + options
        self.sweep, self.session = sweep, session or {}
        self.database = f"bench_{name}"

    def widths(self, efs):
        """What the sweep sets: the widths asked for, or the system's own steps where its setting counts other things."""
        return efs if self.sweep is None else self.sweep[: len(efs)]

    def available(self):
        with psycopg.connect(dbname="postgres") as conn:
            query = "SELECT default_version FROM pg_available_extensions WHERE name = %s"
            row = conn.execute(query, [self.extension]).fetchone()
            return row and row[0]

    def connect(self, **settings):
        options = " ".join(f"-c {key}={value}" for key, value in settings.items())
        return psycopg.connect(dbname=self.database, autocommit=True, options=options)

    def search_settings(self, ef):
        """The same for both: no sequential scan, so that it is the index that is measured."""
        return {self.setting: ef, "enable_seqscan": "off", **self.session}

    # --- data -------------------------------------------------------------------------------------

    def create(self, dataset):
        with psycopg.connect(dbname="postgres", autocommit=True) as conn:
            conn.execute(f"DROP DATABASE IF EXISTS {self.database}")
            conn.execute(f"CREATE DATABASE {self.database}")
        with self.connect() as conn:
            conn.execute(f"CREATE EXTENSION {self.extension}")
            conn.execute("CREATE EXTENSION IF NOT EXISTS pg_prewarm")
            for table in ("items", "pool", "queries"):
                conn.execute(f"CREATE TABLE {table} (id int, embedding vector({dataset.dim}))")
            copy_vectors(conn, "queries", dataset.queries)
            conn.execute("ALTER TABLE queries ADD PRIMARY KEY (id)")

    def fill(self, dataset, rows):
        with self.connect() as conn:
            conn.execute("DROP INDEX IF EXISTS items_embedding_idx")
            conn.execute("TRUNCATE items")
            copy_vectors(conn, "items", dataset.base[:rows])
            conn.execute("VACUUM ANALYZE items")

    # --- building ---------------------------------------------------------------------------------

    def build(self, dataset, memory):
        """Seconds, and the peak of memory in MB that the build held beside shared_buffers."""
        with self.connect(maintenance_work_mem=memory, max_parallel_maintenance_workers=1) as conn:
            conn.execute("DROP INDEX IF EXISTS items_embedding_idx")
            conn.execute("CHECKPOINT")
            with MemoryWatch(conn.info.backend_pid) as watch:
                start = time.perf_counter()
                conn.execute(
                    f"CREATE INDEX items_embedding_idx ON items USING {self.method} (embedding {OPCLASS[dataset.metric]})"
                    f" WITH ({self.options})"
                )
                return time.perf_counter() - start, watch.peak_mb

    def index_bytes(self):
        with self.connect() as conn:
            return conn.execute("SELECT pg_relation_size('items_embedding_idx')").fetchone()[0]

    # --- inserting --------------------------------------------------------------------------------

    def fill_pool(self, dataset, start):
        with self.connect() as conn:
            copy_vectors(conn, "pool", dataset.base[start:], start)
            conn.execute("ALTER TABLE pool ADD PRIMARY KEY (id)")
            conn.execute(f"CREATE SEQUENCE next_row MINVALUE 0 START {start}")
            conn.execute("VACUUM ANALYZE pool")
        self.pool_left = len(dataset.base) - start

    def insert_rate(self, sessions, seconds):
        """Rows per second from so many sessions, one commit a row. In rounds, as the pool must not run dry."""
        rows, spent, size = 0, 0.0, 100
        while spent < seconds and self.pool_left >= size * sessions:
            rate = self._pgbench(INSERT, sessions, ["-t", str(size)])
            rows, spent = rows + size * sessions, spent + size * sessions / rate
            self.pool_left -= size * sessions
            size = max(100, int(min(seconds - spent, seconds / 2) * rate / sessions))
            size = min(size, max(100, self.pool_left // (4 * sessions)))
        return rows / spent if spent else None

    # --- searching --------------------------------------------------------------------------------

    def prewarm(self):
        with self.connect() as conn:
            for relation in ("items", "items_embedding_idx"):
                conn.execute("SELECT pg_prewarm(%s)", [relation])

    def check_plan(self, dataset):
        with self.connect(**self.search_settings(40)) as conn:
            plan = "\n".join(row[0] for row in conn.execute("EXPLAIN " + search_sql(dataset.metric, "0")))
            if "Index Scan using items_embedding_idx" not in plan:
                raise SystemExit(f"bench: {self.name} does not use its index:\n{plan}")

    def found(self, dataset, ef, k=10):
        with self.connect(**self.search_settings(ef)) as conn:
            query = search_sql(dataset.metric, "%s", k)
            return [[r[0] for r in conn.execute(query, [i], prepare=True)] for i in range(len(dataset.queries))]

    def floor(self, dataset, clients, seconds):
        """ms that a query takes without any vector search: the round trip and the lookup of the query's row."""
        script = f"\\set q random(0, {len(dataset.queries) - 1})\nSELECT id FROM queries WHERE id = :q;\n"
        return 1000 * clients / self._pgbench(script, clients, ["-T", str(seconds)], enable_seqscan="off")

    def throughput(self, dataset, ef, clients, seconds):
        """Queries per second, p50 and p99 in ms, by pgbench with prepared statements."""
        script = f"\\set q random(0, {len(dataset.queries) - 1})\n{search_sql(dataset.metric, ':q')};\n"
        with tempfile.TemporaryDirectory() as folder:
            logs = pathlib.Path(folder)
            arguments = ["-T", str(seconds), "-l", f"--log-prefix={logs}/tx"]
            qps = self._pgbench(script, clients, arguments, **self.search_settings(ef))
            micros = np.concatenate([np.loadtxt(f, usecols=2, ndmin=1) for f in logs.glob("tx*")])
        return qps, *(float(np.percentile(micros, p)) / 1000 for p in (50, 99))

    def cold(self, dataset, ef, connections=10):
        """ms of the first query of a new connection, mean of its first 10 and 100, and its private memory in MB."""
        query = search_sql(dataset.metric, "%s")
        first, ten, hundred, memory = [], [], [], []
        for connection in range(connections):
            with self.connect(**self.search_settings(ef)) as conn:
                times = []
                for i in range(100):
                    start = time.perf_counter()
                    conn.execute(query, [(connection * 100 + i) % len(dataset.queries)]).fetchall()
                    times.append((time.perf_counter() - start) * 1000)
                memory.append(private_mb(conn.info.backend_pid))
            first.append(times[0])
            ten.append(np.mean(times[:10]))
            hundred.append(np.mean(times))
        return [float(np.median(x)) for x in (first, ten, hundred, memory)]

    def _pgbench(self, script, clients, arguments, **settings):
        """Transactions per second, without the time to connect."""
        options = " ".join(f"-c {key}={value}" for key, value in settings.items())
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
            file.write(script)
            file.flush()
            command = ["pgbench", "-n", "-M", "prepared", "-f", file.name, "-c", str(clients), "-j", str(clients)]
            env = {**os.environ, "PGOPTIONS": options}
            run = subprocess.run([*command, *arguments, self.database], env=env, capture_output=True, text=True)
        if run.returncode or "(without initial connection time)" not in run.stdout:
            raise SystemExit(f"bench: pgbench failed on {self.name}: {run.stderr.strip()}")
        tps = next(line for line in run.stdout.splitlines() if line.startswith("tps"))
        return float(tps.split()[2])


# Lists to visit, of some 2 * sqrt(rows).
PROBES = (2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)

# The first two are one access method: all rows recent, all rows old.
SYSTEMS = {
    "hnsw": System("hnsw", "hybridvec", "hybrid", "hybrid.ef_search", ", recent_threshold = 'infinity'"),
    "ivf": System("ivf", "hybridvec", "hybrid", "hybrid.probes", ", recent_rows = 0", PROBES),
    "pgvector": System("pgvector", "vector", "hnsw", "hnsw.ef_search"),
}


def search_sql(metric, query, k=10):
    """The vector comes from a table, so neither system parses text; the cost of that is the same for both."""
    vector = f"(SELECT embedding FROM queries WHERE id = {query})"
    return f"SELECT id FROM items ORDER BY embedding {OPERATOR[metric]} {vector} LIMIT {k}"


def copy_vectors(conn, table, vectors, first_id=0, block=5_000):
    """COPY in binary: per row two fields, an int4 and a vector (int16 dimensions, int16 0, float4 values), big-endian."""
    dim = vectors.shape[1]
    row = np.dtype(
        [("fields", ">i2"), ("id_size", ">i4"), ("id", ">i4"), ("size", ">i4"), ("dim", ">i2"), ("unused", ">i2"), ("v", ">f4", dim)]
    )
    with conn.cursor().copy(f"COPY {table} (id, embedding) FROM STDIN (FORMAT binary)") as copy:
        copy.write(HEADER)
        for start in range(0, len(vectors), block):
            part = vectors[start : start + block]
            out = np.zeros(len(part), dtype=row)
            out["fields"], out["id_size"], out["size"], out["dim"] = 2, 4, 4 + 4 * dim, dim
            out["id"], out["v"] = np.arange(first_id + start, first_id + start + len(part)), part
            copy.write(out.tobytes())
        copy.write(struct.pack(">h", -1))


def private_mb(pid):
    """Anonymous memory of a process: what it holds beside shared_buffers."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return 0.0


def dynamic_shared_mb(pid):
    """Dynamic shared memory that a process maps (pgvector builds its graph there)."""
    total, counting = 0, False
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            counting = "/dev/shm/PostgreSQL" in line
        elif counting and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total / 1024


def parallel_workers(leader):
    with psycopg.connect(dbname="postgres", autocommit=True) as conn:
        return [r[0] for r in conn.execute("SELECT pid FROM pg_stat_activity WHERE leader_pid = %s", [leader])]


class MemoryWatch:
    """Samples the memory of a building backend and its parallel workers, twice a second."""

    def __init__(self, pid):
        self.pid, self.peak_mb, self._stop = pid, 0.0, threading.Event()

    def __enter__(self):
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _watch(self):
        while not self._stop.wait(0.5):
            with contextlib.suppress(OSError):  # a worker may have gone, or belong to another user
                processes = {self.pid, *parallel_workers(self.pid)}
                now = sum(private_mb(p) for p in processes) + dynamic_shared_mb(self.pid)
                self.peak_mb = max(self.peak_mb, now)
