"""Writes what was measured: a Markdown page and an SVG plot of recall against queries per second."""

import datetime
import os
import pathlib
import platform
import subprocess

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TARGETS = (0.90, 0.95, 0.98, 0.99)
COLOR = {"hnsw": "#0b6e4f", "ivf": "#2b5fa8", "pgvector": "#b3541e"}
LABEL = {"hnsw": "hybrid, all rows recent (HNSW)", "ivf": "hybrid, all rows old (IVF)", "pgvector": "pgvector HNSW"}


def qps_at(points, target):
    """Queries per second at a recall, between the two settings of the sweep around it (log-linear).

    Returns (qps, 'exact' | 'at least' | None): the narrowest search may be better than asked for,
    the widest may not reach it.
    """
    points = sorted((p["recall"], p["qps"]) for p in points)
    if points[0][0] >= target:
        return max(qps for _, qps in points), "at least"
    for (r0, q0), (r1, q1) in zip(points, points[1:]):
        if r0 < target <= r1:
            share = (target - r0) / (r1 - r0)
            return float(np.exp(np.log(q0) * (1 - share) + np.log(q1) * share)), "exact"
    return None, None


def machine():
    cpu = "unknown CPU"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}"


def commit():
    def git(*arguments):
        return subprocess.run(["git", *arguments], capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "src", "crates", "sql", "Cargo.lock")
    return git("rev-parse", "--short=12", "HEAD") + (" with local changes" if changed else "")


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(str(c) for c in row) + " |" for row in rows])


def number(value, form="{:,.0f}"):
    return "-" if value is None else form.format(value)


def ratio(a, b, form="{:.1f}x"):
    return "" if not a or not b else form.format(a / b)


def compared(label, results, get, form="{:,.0f}", better="high"):
    """A row: the value of each system, and how much better each of ours is than pgvector."""
    values = {name: get(r) for name, r in results.items()}
    row = [label] + [number(v, form) for v in values.values()]
    for name in ours_compared(results):
        ours, theirs = values[name], values["pgvector"]
        row.append(ratio(ours, theirs) if better == "high" else ratio(theirs, ours))
    return row


def ours_compared(results):
    """Our systems, where there is something to compare them with."""
    return [name for name in results if name != "pgvector"] if "pgvector" in results else []


def overview(results, clients):
    rows = [
        compared("build, maintenance_work_mem 1 GB (s)", results, lambda r: r["build"]["1GB"][0], "{:.1f}", "low"),
        compared("build, maintenance_work_mem 64 MB (s)", results, lambda r: r["build"]["64MB"][0], "{:.1f}", "low"),
        compared("memory of the build at 1 GB (MB)", results, lambda r: r["build"]["1GB"][1], "{:,.0f}", "low"),
        compared("memory of the build at 64 MB (MB)", results, lambda r: r["build"]["64MB"][1], "{:,.0f}", "low"),
        compared("index size (MB)", results, lambda r: r["bytes"] / 2**20, "{:,.1f}", "low"),
        compared("bytes per row", results, lambda r: r["bytes_per_row"], "{:,.0f}", "low"),
    ]
    for sessions in next(iter(results.values()))["inserts"]:
        label = f"rows inserted per second, {sessions} session{'s' * (sessions > 1)}"
        rows.append(compared(label, results, lambda r, s=sessions: r["inserts"][s]))
    for i, what in enumerate(("first query of a new connection (ms)", "mean of its first 10", "mean of its first 100")):
        rows.append(compared(what, results, lambda r, i=i: r["cold"][i], "{:.2f}", "low"))
    rows.append(compared("memory of a backend after 100 queries (MB)", results, lambda r: r["cold"][3], "{:.1f}", "low"))
    for c in clients:
        label = f"a query without a search, {c} client{'s' * (c > 1)} (ms): the floor"
        rows.append(compared(label, results, lambda r, c=c: r["floor"][c], "{:.3f}", "low"))
        for target in TARGETS:
            label = f"QPS at recall {target:.2f}, {c} client{'s' * (c > 1)}"
            rows.append(compared(label, results, lambda r, t=target, c=c: qps_at(r["search"][c], t)[0]))
    header = ["", *(LABEL[name] for name in results), *(f"{name.upper()} is better by" for name in ours_compared(results))]
    return table(header, rows)


def details(results, clients):
    rows = []
    for c in clients:
        for name, r in results.items():
            for p in r["search"][c]:
                rows.append(
                    [name, c, p["width"], f"{p['recall']:.4f}", f"{p['qps']:,.0f}", qps_range(p), f"{p['p50']:.2f}", f"{p['p99']:.2f}"]
                )
    return table(["system", "clients", "ef_search or probes", "recall@10", "QPS", "range", "p50 ms", "p99 ms"], rows)


def bounds_note(results, clients):
    """Where a sweep starts above a recall, its figure there is a lower bound: say so."""
    notes = [
        f"{name} at {target:.2f} ({c} client{'s' * (c > 1)})"
        for c in clients
        for name, r in results.items()
        for target in TARGETS
        if qps_at(r["search"][c], target)[1] == "at least"
    ]
    return f"\nEven the narrowest search exceeds the recall asked for, so QPS is its: {', '.join(notes)}.\n" if notes else ""


def qps_range(point):
    rates = [r[0] for r in point["rounds"]]
    return f"{min(rates):,.0f}-{max(rates):,.0f}"


def noise(results, facts):
    """How far to trust the figures: what else ran, and how much rounds of the same point differ."""
    spreads = [p["spread"] for r in results.values() for points in r["search"].values() for p in points]
    text = f"Other work took {facts['busy'][0]:.0%} of the processors before and {facts['busy'][1]:.0%} after the run;"
    text += f" the rounds of a point differ by {np.median(spreads):.0%} (median)."
    if max(facts["busy"]) > 0.1 or np.median(spreads) > 0.25:
        text += " **That is a disturbed run: do not quote it.**"
    return text


def plot(dataset, results, clients, path):
    plt.rcParams.update({"svg.hashsalt": "hybridvec", "font.size": 10})
    figure, axes = plt.subplots(figsize=(7, 4.3))
    for name, r in results.items():
        for c, style in zip(clients, ("-", "--", ":", "-.")):
            points = r["search"][c]
            label = f"{LABEL[name]}, {c} client{'s' * (c > 1)}"
            xs, ys = [p["recall"] for p in points], [p["qps"] for p in points]
            axes.plot(xs, ys, style, marker="o", markersize=3.5, color=COLOR[name], label=label)
    axes.set(yscale="log", xlabel="recall@10", ylabel="queries per second")
    axes.set_title(f"{dataset.name}: {len(dataset.base):,} x {dataset.dim}, {dataset.metric}")
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def write(dataset, results, clients, facts, folder):
    folder.mkdir(parents=True, exist_ok=True)
    image, page = folder / f"{dataset.name}.svg", folder / f"{dataset.name}.md"
    plot(dataset, results, clients, image)
    settings = ", ".join(f"{key} {value}" for key, value in facts["settings"].items())
    page.write_text(
        f"""# {dataset.name}: {len(dataset.base):,} vectors of {dataset.dim} dimensions, {dataset.metric}

Written by `make bench` on {datetime.date.today()}, commit {commit()}.
Machine: {machine()}. {noise(results, facts)}
{facts["server"]}; {", ".join(facts["versions"])}. Settings: {settings}; the others are PostgreSQL's defaults.

![recall and queries per second]({image.name})

{overview(results, clients)}
{bounds_note(results, clients)}
Both systems: one server, the same tables, m = 16, ef_construction = 64, measured in turn point by point. Builds use two threads
or processes (max_parallel_maintenance_workers = 1: pgvector's leader and one worker, a pool of two threads for hybrid). `hnsw` is `hybrid`
with recent_threshold = 'infinity', `ivf` with recent_rows = 0. Memory of a
build is what its processes hold beside shared_buffers, sampled twice a second. Inserts: pgbench, one row a commit,
into an index that holds half of the rows. Searches: pgbench -M prepared, `ORDER BY embedding <op> (SELECT embedding FROM queries WHERE
id = :q) LIMIT 10`, {facts["rounds"]} rounds of {facts["seconds"]} s a point (the table shows medians, and the range of the rounds), everything in shared_buffers. QPS at a recall is interpolated between two
settings of ef_search or probes. The floor is in every query of both systems. Compare
systems at the same number of clients; where the floor differs between numbers of clients, those do not compare with each other.
Recall: {len(dataset.queries)} queries that are not among the rows, against exact neighbors.

{details(results, clients)}
"""
    )
    return page
