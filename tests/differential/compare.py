#!/usr/bin/env python3
"""Runs the same statements through hybridvec and through pgvector and compares what a client sees.

Text, bytes (vector_send), SQLSTATE, message, position, detail and hint must be equal; distances may differ by 2e-6, relative to the size of the
terms summed. Needs a server (PGHOST, PGPORT, PGUSER; a role that may create databases) where both extensions are installed;
says so and skips where pgvector is not. Standard library and psql only.

    tests/differential/compare.py [--count 4000] [--seed 1]
"""

import argparse
import math
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import statements  # noqa: E402

DATABASES = {"vector": "differential_pgvector", "hybridvec": "differential_hybridvec"}
TOLERANCE = 2e-6


def psql(database, *arguments):
    command = ["psql", "-X", "-q", "-A", "-t", "-d", database, *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8")


def is_available(extension):
    query = f"SELECT 1 FROM pg_available_extensions WHERE name = '{extension}'"
    result = psql("postgres", "-c", query)
    if result.returncode != 0:
        sys.exit(f"cannot reach the server: {result.stderr.strip()}")
    return result.stdout.strip() == "1"


def prepare(extension):
    database = DATABASES[extension]
    for command in (f"DROP DATABASE IF EXISTS {database}", f"CREATE DATABASE {database}"):
        result = psql("postgres", "-c", command)
        if result.returncode != 0:
            sys.exit(result.stderr.strip())
    result = psql(database, "-c", f"CREATE EXTENSION {extension}", "-c", statements.SETUP)
    if result.returncode != 0:
        sys.exit(result.stderr.strip())


def run(extension, batch):
    """Per statement: the rows, and after them the error with its SQLSTATE, position, detail and hint."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql", encoding="utf-8") as script:
        script.write("\\set VERBOSITY verbose\n")
        for number, statement in enumerate(batch):
            end = "" if statement.startswith("\\") else ";"
            script.write(f"\\echo '#{number}'\n\\warn '#{number}'\n{statement}{end}\n")
        script.flush()
        result = psql(DATABASES[extension], "-f", script.name)
    # The file name of the script and the source location differ always.
    messages = re.sub(r"(?m)^psql:\S+ |^LOCATION: .*\n?", "", result.stderr)
    rows, faults = by_number(result.stdout), by_number(messages)
    return ["\n".join(filter(None, (rows.get(number), faults.get(number)))) for number in range(len(batch))]


def by_number(output):
    answers = {}
    for part in ("\n" + output).split("\n#")[1:]:
        number, _, answer = part.partition("\n")
        answers[int(number)] = answer.strip("\n")
    return answers


def is_close(ours, theirs, scale):
    try:
        ours, theirs = float(ours), float(theirs)
    except ValueError:
        return False
    if math.isnan(ours) or math.isnan(theirs):
        return math.isnan(ours) and math.isnan(theirs)
    if math.isinf(ours) or math.isinf(theirs):
        return ours == theirs
    return abs(ours - theirs) <= TOLERANCE * max(abs(ours), abs(theirs), scale)


def compare(cases):
    """The differences, each a statement and both answers, and how many statements pgvector refused."""
    batch = [case.sql for case in cases]
    ours, theirs = run("hybridvec", batch), run("vector", batch)
    is_same = lambda case, our, their: our == their or (case.scale is not None and is_close(our, their, case.scale))
    answers = list(zip(cases, ours, theirs))
    found = [(case.sql, our, their) for case, our, their in answers if not is_same(case, our, their)]
    return found, sum("ERROR:  " in their for their in theirs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=4000, help="generated statements")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for extension in DATABASES:
        if not is_available(extension):
            print(f"SKIP: this server has no extension {extension} to compare with")
            return
        prepare(extension)
    with tempfile.TemporaryDirectory() as folder:
        cases = statements.fixed(Path(folder)) + statements.generated(random.Random(options.seed), options.count)
        found, errors = compare(cases)
    for sql, our, their in found[:50]:
        print(f"{sql[:300]}\n  hybridvec: {our[:500]}\n  pgvector:  {their[:500]}")
    print(f"{len(cases)} statements, {errors} of them errors, {len(found)} differences")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
