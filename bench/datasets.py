"""Vector sets: a folder of raw files with meta.json, an ann-benchmarks HDF5 file, or an fvecs file."""

import dataclasses
import json
import pathlib

import numpy as np

MAX_QUERIES = 1000


@dataclasses.dataclass
class Dataset:
    name: str
    base: np.ndarray  # float32 or float16, one row per vector
    queries: np.ndarray  # float32
    metric: str  # l2, cosine or ip
    neighbors: np.ndarray | None  # true nearest rows of each query, if known for this metric and these rows

    @property
    def dim(self):
        return self.base.shape[1]


def load(path, metric=None, rows=None):
    path = pathlib.Path(path)
    if path.is_dir():
        dataset = _folder(path, metric)
    elif path.suffix in (".hdf5", ".h5"):
        dataset = _hdf5(path, metric)
    elif path.suffix == ".fvecs":
        dataset = _fvecs(path, metric)
    else:
        raise SystemExit(f"bench: {path} is neither a folder with meta.json, nor .hdf5, nor .fvecs")
    if rows and rows < len(dataset.base):
        dataset.base, dataset.neighbors = dataset.base[:rows], None
    if dataset.neighbors is None:
        dataset.neighbors = exact_neighbors(dataset)
    return dataset


def _folder(path, metric):
    meta = json.loads((path / "meta.json").read_text())
    metric = metric or "cosine"
    truth = path / {"l2": "gt_l2.i32", "cosine": "gt_cos.i32"}.get(metric, "none")
    return Dataset(
        name=meta["name"],
        base=np.memmap(path / "base.f16", dtype="<f2", mode="r", shape=(meta["n"], meta["dim"])),
        queries=np.fromfile(path / "queries.f32", dtype="<f4").reshape(meta["nq"], meta["dim"]),
        metric=metric,
        neighbors=np.fromfile(truth, dtype="<i4").reshape(meta["nq"], -1) if truth.exists() else None,
    )


def _hdf5(path, metric):
    import h5py

    with h5py.File(path) as f:
        own = {"angular": "cosine", "euclidean": "l2", "dot": "ip"}[f.attrs["distance"]]
        metric = metric or own
        neighbors = f["neighbors"][:MAX_QUERIES] if metric == own else None
        return Dataset(path.stem, f["train"][:], f["test"][:MAX_QUERIES], metric, neighbors)


def _fvecs(path, metric):
    """NAME_base.fvecs with NAME_query.fvecs and, if there, NAME_groundtruth.ivecs (Euclidean) beside it."""
    stem = path.stem.removesuffix("_base")
    query = path.with_name(stem + "_query.fvecs")
    if not query.exists():
        raise SystemExit(f"bench: {query} is missing (the queries that belong to {path.name})")
    metric = metric or "l2"
    truth = path.with_name(stem + "_groundtruth.ivecs")
    neighbors = _vecs(truth, "<i4")[:MAX_QUERIES] if metric == "l2" and truth.exists() else None
    return Dataset(stem, _vecs(path, "<f4"), _vecs(query, "<f4")[:MAX_QUERIES], metric, neighbors)


def _vecs(path, dtype):
    """Each row: int32 length, then that many 4-byte values."""
    raw = np.fromfile(path, dtype="<i4")
    return raw.reshape(-1, raw[0] + 1)[:, 1:].view(dtype)


def distances(metric, query, rows):
    """From one query to each of some rows, in float64."""
    query, rows = query.astype(np.float64), rows.astype(np.float64)
    if metric == "l2":
        return np.linalg.norm(rows - query, axis=1)
    if metric == "ip":
        return -rows @ query
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(query)
    return 1 - rows @ query / np.where(norms == 0, 1, norms)


def exact_neighbors(dataset, k=10, block=20_000):
    """The k nearest rows of each query: float32 candidates by block, float64 for their order."""
    best = [(np.empty(0, np.int64), np.empty(0)) for _ in dataset.queries]
    for start in range(0, len(dataset.base), block):
        rows = np.asarray(dataset.base[start : start + block], dtype=np.float32)
        scores = _scores(dataset.metric, dataset.queries, rows)
        keep = min(4 * k, len(rows))
        candidates = np.argpartition(scores, keep - 1, axis=1)[:, :keep]
        for i, ids in enumerate(candidates):
            exact = distances(dataset.metric, dataset.queries[i], rows[ids])
            all_ids, all_distances = np.append(best[i][0], ids + start), np.append(best[i][1], exact)
            order = np.argsort(all_distances, kind="stable")[:k]
            best[i] = all_ids[order], all_distances[order]
    return np.array([ids for ids, _ in best])


def _scores(metric, queries, rows):
    products = queries @ rows.T
    if metric == "ip":
        return -products
    norms = np.linalg.norm(rows, axis=1)
    if metric == "cosine":
        return -products / np.where(norms == 0, 1, norms)
    return norms**2 - 2 * products


def recall(dataset, found, k=10):
    """Mean share of the k results that are as near as the true k-th neighbor (so ties count)."""
    shares = []
    for i, ids in enumerate(found):
        query = dataset.queries[i]
        limit = distances(dataset.metric, query, dataset.base[dataset.neighbors[i][:k]]).max()
        if len(ids):
            near = distances(dataset.metric, query, dataset.base[np.array(ids)]) <= limit + 1e-6 * abs(limit) + 1e-9
            shares.append(near.sum() / k)
        else:
            shares.append(0.0)
    return float(np.mean(shares))
