"""Measures hybrid, and pgvector when the server has it, on one set of vectors. Called by scripts/bench.sh.

The server is found through PGHOST and PGPORT, pgbench through PATH.
"""

import argparse
import os
import pathlib
import statistics
import time

import psycopg

import datasets
import report
from systems import SYSTEMS

EF_SEARCH = (10, 20, 40, 60, 80, 120, 160, 240, 320, 480, 640, 800)
SETTINGS = ("shared_buffers", "max_wal_size", "checkpoint_timeout", "jit", "fsync", "synchronous_commit", "full_page_writes")
STARTED = time.monotonic()


def progress(*words):
    print(f"[{time.monotonic() - STARTED:6.0f} s]", *words, flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="folder with meta.json, .hdf5 or .fvecs")
    parser.add_argument("--metric", choices=("l2", "cosine", "ip"))
    parser.add_argument("--rows", type=int, help="only the first so many rows")
    parser.add_argument("--clients", default="1 2")
    parser.add_argument("--systems", default="hnsw ivf pgvector")
    parser.add_argument("--seconds", type=int, default=2, help="per point and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ef", default=" ".join(map(str, EF_SEARCH)))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "results")
    return parser.parse_args()


def choose_systems(names):
    chosen, versions = [], []
    for name in names.split():
        if name not in SYSTEMS:
            raise SystemExit(f"bench: no system '{name}': there are {', '.join(SYSTEMS)}")
        version = SYSTEMS[name].available()
        if version:
            chosen.append(SYSTEMS[name])
            if f"{SYSTEMS[name].extension} {version}" not in versions:
                versions.append(f"{SYSTEMS[name].extension} {version}")
        else:
            progress(f"{name} is left out: this server has no extension '{SYSTEMS[name].extension}'")
    if not chosen:
        raise SystemExit("bench: nothing to measure")
    return chosen, versions


def measure_inserts(system, dataset, seconds):
    half = len(dataset.base) // 2
    system.fill(dataset, half)
    system.build(dataset, "1GB")
    system.fill_pool(dataset, half)
    rates = {}
    for sessions in (1, 4):
        rates[sessions] = system.insert_rate(sessions, seconds)
        progress(f"{system.name}: {report.number(rates[sessions])} rows/s inserted from {sessions} session(s)")
    return rates


def measure_builds(system, dataset):
    system.fill(dataset, len(dataset.base))
    times = {}
    for memory in ("64MB", "1GB"):  # the last one stays, and is searched
        times[memory] = system.build(dataset, memory)
        progress(f"{system.name}: built in {times[memory][0]:.1f} s with maintenance_work_mem {memory}")
    size = system.index_bytes()
    progress(f"{system.name}: {size / 2**20:.1f} MB, {size / len(dataset.base):.0f} bytes per row")
    return {"build": times, "bytes": size, "bytes_per_row": size / len(dataset.base)}


def measure_searches(systems, dataset, results, clients, efs, seconds, rounds):
    """Whole sweeps, several times, the systems in turn at every point: other work on the machine comes in bursts,
    which then spoil one round of a point, not its median, and both systems alike."""
    for system in systems:
        system.prewarm()
        system.check_plan(dataset)
        results[system.name]["search"] = {c: [{"width": w, "rounds": []} for w in system.widths(efs)] for c in clients}
    for n in range(rounds):
        for i in range(len(efs)):
            for system in systems[:: 1 if n % 2 == 0 else -1]:
                if i >= len(results[system.name]["search"][clients[0]]):
                    continue
                width = system.widths(efs)[i]
                points = [results[system.name]["search"][c][i] for c in clients]
                if n == 0:
                    recall = datasets.recall(dataset, system.found(dataset, width))
                    for point in points:
                        point["recall"] = recall
                for c, point in zip(clients, points):
                    point["rounds"].append(system.throughput(dataset, width, c, seconds))
                rates = ", ".join(f"{p['rounds'][-1][0]:,.0f}" for p in points)
                progress(f"round {n + 1} of {rounds}: {system.name}, {system.setting} {width}: recall {points[0]['recall']:.4f}, QPS {rates}")
    for system in systems:
        for point in (p for c in clients for p in results[system.name]["search"][c]):
            point["qps"], point["p50"], point["p99"] = (statistics.median(x) for x in zip(*point["rounds"]))
            rates = [r[0] for r in point["rounds"]]
            point["spread"] = (max(rates) - min(rates)) / point["qps"]
        results[system.name]["cold"] = system.cold(dataset, system.widths([10, 20, 40])[-1])
        results[system.name]["floor"] = {c: system.floor(dataset, c, seconds) for c in clients}


def others_busy(seconds=3):
    """Share of the processors that work which is not ours takes, while our server idles."""

    def ticks():
        fields = [int(x) for x in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]

    total, idle = ticks()
    time.sleep(seconds)
    total_after, idle_after = ticks()
    return 1 - (idle_after - idle) / (total_after - total)


def server_facts():
    with psycopg.connect(dbname="postgres") as conn:
        settings = {s: conn.execute(f"SHOW {s}").fetchone()[0] for s in SETTINGS}
        return "PostgreSQL " + conn.execute("SHOW server_version").fetchone()[0], settings


def main():
    args = arguments()
    clients = [int(c) for c in args.clients.split()]
    systems, versions = choose_systems(args.systems)
    progress(f"reading {args.data}")
    dataset = datasets.load(args.data, args.metric, args.rows)
    progress(f"{dataset.name}: {len(dataset.base):,} x {dataset.dim}, {dataset.metric}, {len(dataset.queries)} queries")
    busy = [others_busy()]
    if busy[0] > 0.1:
        progress(f"other work takes {busy[0]:.0%} of this machine: the figures will be unreliable")
    results = {}
    for system in systems:
        system.create(dataset)
        inserts = measure_inserts(system, dataset, 2 * args.seconds)
        results[system.name] = {"inserts": inserts, **measure_builds(system, dataset)}
    measure_searches(systems, dataset, results, clients, [int(e) for e in args.ef.split()], args.seconds, args.rounds)
    busy.append(others_busy())
    server, settings = server_facts()
    facts = {
        "server": server,
        "settings": settings,
        "versions": versions,
        "seconds": args.seconds,
        "rounds": args.rounds,
        "busy": busy,
    }
    page = report.write(dataset, results, clients, facts, args.out)
    print("\n" + report.overview(results, clients) + "\n")
    progress(f"wrote {os.path.relpath(page)} and {os.path.relpath(page.with_suffix('.svg'))}")


main()
