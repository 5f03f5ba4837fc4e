"""Writes the demo's rows to standard output as COPY ... (FORMAT binary); needs nothing but Python 3.

    load.py items   -> COPY items (id, category, text, embedding)
    load.py queries -> COPY queries (id, text, embedding)
"""
import gzip
import pathlib
import struct
import sys

DIM = 384
DATA = pathlib.Path(__file__).parent / "data"
HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
TRAILER = struct.pack(">h", -1)


def vector(values):
    """The binary form of a vector: int16 dimensions, int16 unused, float4 values, all big-endian."""
    return struct.pack(f">hh{DIM}f", DIM, 0, *values)


def copy_row(*fields):
    return struct.pack(">h", len(fields)) + b"".join(struct.pack(">i", len(f)) + f for f in fields)


def items():
    planes = gzip.decompress((DATA / "items.f16.gz").read_bytes())
    raw = bytearray(len(planes))
    raw[0::2], raw[1::2] = planes[: len(planes) // 2], planes[len(planes) // 2 :]
    lines = gzip.decompress((DATA / "items.tsv.gz").read_bytes()).splitlines()
    for i, (line, values) in enumerate(zip(lines, struct.iter_unpack(f"<{DIM}e", raw))):
        category, text = line.split(b"\t")
        yield copy_row(struct.pack(">i", i + 1), category, text, vector(values))


def queries():
    lines = (DATA / "query_texts.txt").read_bytes().splitlines()
    raw = (DATA / "queries.f32").read_bytes()
    for i, (line, values) in enumerate(zip(lines, struct.iter_unpack(f"<{DIM}f", raw))):
        yield copy_row(struct.pack(">i", i + 1), line, vector(values))


out = sys.stdout.buffer
out.write(HEADER)
out.writelines({"items": items, "queries": queries}[sys.argv[1]]())
out.write(TRAILER)
