"""Cuts demo/data out of the full set of embeddings (needs numpy and zstandard; the demo itself does not).

    python3 demo/cut_sample.py ../shared/data/debminilm
"""
import gzip
import json
import pathlib
import shutil
import sys

import numpy as np
import zstandard

CATEGORIES = """noun.food noun.animal noun.event noun.phenomenon debian.games debian.sound debian.graphics debian.mail
    debian.vcs debian.database debian.science debian.hamradio debian.editors debian.video""".split()
# Held-out texts that a person can judge; the first ones are printed by the demo.
QUERIES = [484, 475, 338, 219, 95, 457, 248, 454, 250, 178, 197, 185, 440, 495, 406, 97, 94, 358, 5, 57]


def gzip_to(path, data):
    path.write_bytes(gzip.compress(data, 9, mtime=0))


def main(source, out=pathlib.Path(__file__).parent / "data"):
    meta = json.loads((source / "meta.json").read_text())
    dim = meta["dim"]
    labels = np.fromfile(source / "labels.u8", dtype="u1")
    rows = np.flatnonzero(np.isin(labels, [meta["label_names"].index(c) for c in CATEGORIES]))
    base = np.memmap(source / "base.f16", dtype="<f2", mode="r", shape=(meta["n"], dim))
    raw = np.ascontiguousarray(base[rows]).tobytes()
    gzip_to(out / "items.f16.gz", raw[0::2] + raw[1::2])  # low bytes, then high bytes: compresses better

    packed = zstandard.ZstdDecompressor().stream_reader((source / "texts.txt.zst").read_bytes()).read()
    texts = packed.decode().split("\n")
    lines = [meta["label_names"][labels[i]].split(".")[1] + "\t" + texts[i].replace("\t", " ") for i in rows]
    gzip_to(out / "items.tsv.gz", ("\n".join(lines) + "\n").encode())

    np.fromfile(source / "queries.f32", dtype="<f4").reshape(-1, dim)[QUERIES].tofile(out / "queries.f32")
    query_texts = (source / "query_texts.txt").read_text().split("\n")
    (out / "query_texts.txt").write_text("".join(query_texts[i] + "\n" for i in QUERIES))
    shutil.copy(source / "LICENSE.wordnet.txt", out)
    print(f"{len(rows)} rows, {len(QUERIES)} queries, {sum(f.stat().st_size for f in out.iterdir())} bytes")


main(pathlib.Path(sys.argv[1]))
