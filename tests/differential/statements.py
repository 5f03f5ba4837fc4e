"""The statements that compare.py runs: fixed ones at the edges, generated ones in between."""

import struct
from dataclasses import dataclass
from typing import Optional


@dataclass
class Case:
    sql: str
    # Where floats may differ: the size of the terms summed, to which the difference is relative. None = must be equal.
    scale: Optional[float] = None


SETUP = """
CREATE TABLE small (id serial, v vector(3));
CREATE TABLE wide (id serial, v vector);
INSERT INTO small (v) SELECT ARRAY[i, i % 7, -i]::vector FROM generate_series(1, 200) i;
INSERT INTO small (v) VALUES (NULL), ('[0,0,0]'), ('[1,2,3]');
INSERT INTO wide (v) SELECT array_agg(sin(i * j)::real)::vector FROM generate_series(1, 20) i, generate_series(1, 3000) j
    GROUP BY i;
CREATE INDEX ON small (v);
"""

SPACES = ["", "", "", " ", "\t", "\n", "\r", "\v", "\f", "  "]

EDGE_NUMBERS = """0 -0 +0 1 -1 +1 .5 5. . - + e 1e 1e+ 1e5 1E5 1e+05 1e-5 1e-10 1e20 1e-45 7e-46 7.1e-46 1e-60 -1e-60 1e38 3.4e38
3.4028235e38 3.4028236e38 3.40282356e38 3.40282357e38 4e38 -4e38 1e39 1e400 -1e400 1e99999999999 0e99999 1e-99999999999
nan NaN NAN -nan +nan nan(1) inf -inf Inf infinity -Infinity INFINITY infinit in na 0x 0x1 0X1F 0x.8 0x. 0x1p3 0x1p 0x1p+ 0x1p-149
0x1p-150 0x1.8p-150 0x1p128 0x1.fffffep127 0x1.ffffffp127 0x1.000001 0x1.000003 -0xA.8p-1 1_000 1,5 1;5 1f 1.5.5 --1 +-1 16777217
16777219 0.1 0.2 0.3 123456 1234567 999999 1000000 9999999 0.0001 0.00001 0.000123456 1.17549435e-38 1.1754942e-38 8388608.5
9007199791611905 9007199254740993 33554431 33554432 8.5899346e9 2147483648 4294967296 1.00000017881393432617187499
1.00000017881393432617187500 1.00000017881393432617187501 00000000000000000000000000001 0.00000000000000000000000000000000000001
1e0000000000000001 ١ é null NULL ''1'' "1" 1e5e5 0b1 0o7 1d 1L $1""".split()

EDGE_LITERALS = [
    "", " ", "[", "]", "[]", "[ ]", " [ ] ", "[,]", "[1", "[1,", "[1,]", "[,1]", "[1,,2]", "[1 2]", "[1,2", "1,2]", "{1,2}", "(1,2)",
    "[1]]", "[[1]]", "[1][2]", "[1] x", "[1]\t", "\n[1]", "x[1]", "[1]x", "[1, 2 ,3 ]", "[ 1]", "[1\t,\n2]", "[1;2]", "[1:2]",
    "[1,2,3", "[a]", "[1,a]", "[nan", "[inf", "[nan,", "[1e39", "[1e39,a]", "[a,1e39]", "[1,2]ü", "[1,2,3]]", "[-]", "[1,-]", "[.]",
]


def quote(text):
    return "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def vector(values):
    return "'[" + ",".join(repr(value) for value in values) + "]'::vector"


def fixed(folder):
    cases = [Case(f"SELECT {quote(literal)}::vector") for literal in EDGE_LITERALS]
    for number in EDGE_NUMBERS:
        cases.append(Case(f"SELECT v, vector_send(v) FROM (SELECT {quote(f'[{number}]')}::vector v) s"))
        cases.append(Case(f"SELECT {quote(f'[1, {number} ,2]')}::vector"))
        if number.replace(".", "").replace("-", "").replace("+", "").replace("e", "").isdigit() and number.isascii():
            for array in ("real[]", "double precision[]", "numeric[]", "integer[]"):
                cases.append(Case(f"SELECT ARRAY['{number}']::{array}::vector"))
    return cases + dimensions() + casts() + arithmetic() + aggregates() + comparisons() + catalog() + binary(folder)


def dimensions():
    of = lambda dim: f"('[' || repeat('1,', {dim} - 1) || '1]')::vector"
    cases = [Case(f"SELECT vector_dims({of(dim)})") for dim in (1, 2, 15999, 16000, 16001, 16002, 20000)]
    for typmod in ("0", "1", "3", "16000", "16001", "-1", "a", "1,2", "3.5", "99999999999", "NULL", "'3'"):
        cases.append(Case(f"SELECT '[1,2,3]'::vector({typmod})"))
        cases.append(Case(f"CREATE TEMP TABLE typmod_{len(cases)} (v vector({typmod}))"))
    for dim in (8000, 8001):
        cases.append(Case(f"SELECT vector_dims({of(8000)} || {of(dim)})"))
    for array in ("integer[]", "real[]", "double precision[]", "numeric[]"):
        cases += [Case(f"SELECT vector_dims(array_fill(1, ARRAY[{dim}])::{array}::vector)") for dim in (16000, 16001)]
    return cases


def casts():
    arrays = ["{}", "{1}", "{1,2,3}", "{1,NULL}", "{NULL}", "{{1,2},{3,4}}", "{{1}}", "[0:1]={1,2}", "[5:5]={7}"]
    extremes = ["{NaN}", "{Infinity}", "{-Infinity}", "{1e38}", "{1e39}", "{-1e39}", "{1e-50}", "{2147483647}", "{16777217}", "{1e300}"]
    types = ["integer[]", "real[]", "double precision[]", "numeric[]", "bigint[]", "text[]", "smallint[]"]
    cases = []
    for kind in types:
        for value in arrays + extremes:
            cases.append(Case(f"SELECT '{value}'::{kind}::vector"))
            cases.append(Case(f"SELECT '{value}'::{kind}::vector(3)"))
            cases.append(Case(f"SELECT array_to_vector('{value}'::{kind}, 2, true)"))
        cases.append(Case(f"INSERT INTO wide (v) VALUES ('{{1,2}}'::{kind}) RETURNING v"))
        cases.append(Case(f"SELECT l2_distance('[1,2]'::vector, '{{1,2}}'::{kind})"))
    for sql in ("'[1,2]'::vector::real[]", "'[1,2]'::vector::float8[]", "'[1,2]'::vector::text", "'[1,2]'::text::vector",
                "'[1,2]'::varchar::vector(2)", "array_upper('[1,2]'::vector, 1)", "'[1,2,3]'::vector::vector(2)",
                "pg_typeof('[1]'::vector::real[])", "array_dims('[1,2,3]'::vector::real[])", "'[1,2]'::vector::integer[]",
                "vector_to_float4('[1,2]', -1, false)", "vector('[1,2]'::vector, 3, true)", "(ARRAY[1,NULL,3])[1:1]::vector",
                "(ARRAY[1,NULL])[1:1]::real[]::vector", "array_replace(ARRAY[1,NULL],NULL,2)::vector", "ARRAY[1,2]::vector = '[1,2]'",
                "'[1,2]'::vector = ARRAY[1,2]::real[]", "format_type('vector'::regtype, 3)", "'[1]'::vector || 'x'"):
        cases.append(Case(f"SELECT {sql}"))
    return cases


def binary(folder):
    """Messages for the receive function, by way of COPY."""
    head = lambda dim, unused=0: struct.pack(">hh", dim, unused)
    floats = lambda *values: struct.pack(f">{len(values)}f", *values)
    messages = [head(3) + floats(1, -2, 0.5), head(3) + floats(1e-45, -0.0, 3.4e38), head(2) + floats(1, 2), head(3) + floats(1, 2),
                head(3) + floats(1, 2, 3) + b"x", head(3) + floats(1, 2, 3)[:-1], head(0), head(-1), head(-32768), head(16000), head(16001),
                head(32767), head(3, 1) + floats(1, 2, 3), head(3, -1) + floats(1, 2, 3), head(2, 1) + floats(1, 2), head(0, 1),
                head(3) + floats(float("nan"), 1, 2), head(3) + floats(1, float("inf"), 2), head(3) + floats(float("-inf"), 1),
                b"", b"\0", b"\0\3\0", b"\0\3\0\0", b"[1,2,3]", head(16000) + floats(*range(16000)), head(2, -1)]
    cases = []
    for number, message in enumerate(messages):
        file = folder / f"message_{number}"
        row = struct.pack(">hi", 1, len(message)) + message
        file.write_bytes(b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0) + row + struct.pack(">h", -1))
        for table in ("small", "wide"):
            cases.append(Case(f"\\copy {table} (v) FROM '{file}' (FORMAT binary)"))
            cases.append(Case(f"SELECT vector_dims(v), md5(v::text) FROM {table} ORDER BY id DESC LIMIT 1"))
    return cases


def arithmetic():
    vectors = ["[1,2,3]", "[0,0,0]", "[-1,0.5,1e10]", "[3e38,3e38,3e38]", "[-3e38,0,0]", "[1e-30,1e-30,1]", "[1e-45,0,1]", "[1,2]", "[-0,0,1]"]
    cases = []
    for a in vectors:
        for b in vectors:
            for operator in ("+", "-", "*", "||", "<", "<=", "=", "<>", ">=", ">"):
                cases.append(Case(f"SELECT '{a}'::vector {operator} '{b}'::vector"))
            for function in ("<->", "<#>", "<=>", "<+>"):
                cases.append(Case(f"SELECT '{a}'::vector {function} '{b}'::vector", 0))
            for function in ("l2_distance", "inner_product", "cosine_distance", "l1_distance", "vector_l2_squared_distance",
                             "vector_negative_inner_product", "vector_spherical_distance"):
                cases.append(Case(f"SELECT {function}('{a}'::vector, '{b}'::vector)", 0))
            cases.append(Case(f"SELECT vector_cmp('{a}', '{b}')"))
        for function in ("vector_dims", "vector_norm", "l2_normalize", "binary_quantize", "vector_send"):
            cases.append(Case(f"SELECT {function}('{a}'::vector)"))
        for start in ("-2147483648", "-5", "0", "1", "2", "3", "4", "2147483647"):
            for count in ("-2147483648", "-1", "0", "1", "2", "3", "100", "2147483647"):
                cases.append(Case(f"SELECT subvector('{a}'::vector, {start}, {count})"))
    for dim in (1, 7, 8, 9, 15, 16, 17, 29, 30, 31, 32, 33):
        cases.append(Case(f"SELECT binary_quantize(array_agg((i % 3) - 1)::vector) FROM generate_series(1, {dim}) i"))
    return cases


def aggregates():
    queries = ["avg(v), sum(v) FROM small", "avg(v), sum(v) FROM small WHERE false", "avg(v), count(*) FROM wide WHERE id <= 20",
               "sum(v) FROM wide WHERE id <= 20", "id % 5, avg(v), sum(v) FROM small GROUP BY 1 ORDER BY 1",
               "avg(v) OVER (ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) FROM small WHERE id < 20 ORDER BY id",
               "avg(v) OVER (ORDER BY id), sum(v) OVER (ORDER BY id) FROM small WHERE id < 20 ORDER BY id",
               "avg(v), avg(v) FILTER (WHERE id < 3), avg(DISTINCT v) FROM small", "min(v::text), max(v::text) FROM small",
               "avg(v) FROM (VALUES ('[1,2]'::vector), ('[1]')) t(v)", "sum(v) FROM (VALUES ('[1,2]'::vector), ('[1]')) t(v)",
               "avg(v) FROM (VALUES ('[3e38]'::vector), ('[3e38]')) t(v)", "sum(v) FROM (VALUES ('[3e38]'::vector), ('[3e38]')) t(v)",
               "avg(v) FROM (VALUES (NULL::vector)) t(v)", "vector_accum('{0}', '[1,2]')", "vector_accum('{1,2,3}', '[1,2]')",
               "vector_accum('{1,2}', '[1,2]')", "vector_accum('{5}', '[1,2]')", "vector_combine('{0}', '{2,3}')",
               "vector_combine('{2,3}', '{0}')", "vector_combine('{2,3}', '{1,4}')", "vector_combine('{2,3}', '{1,4,5}')",
               "vector_combine('{1,1e308}', '{1,1e308}')", "vector_accum('{1,1.7e308}', '[3e38]')", "vector_avg('{0}')",
               "vector_avg('{2,4,6}')", "vector_avg('{1}')", "vector_avg('{1,1e300}')", "vector_avg('{1,NaN}')", "vector_combine('{0}', '{0}')"]
    return [Case(f"SELECT {query}") for query in queries]


def comparisons():
    queries = ["v FROM small ORDER BY v NULLS FIRST LIMIT 50", "DISTINCT v FROM small ORDER BY 1", "count(*) FROM small WHERE v > '[5,5,5]'",
               "id FROM small WHERE v = '[1,2,3]' ORDER BY id", "v, count(*) FROM small GROUP BY v ORDER BY v DESC LIMIT 9",
               "a.id, b.id FROM small a JOIN small b ON a.v = b.v ORDER BY 1, 2", "id FROM small ORDER BY v <-> '[5,5,5]', id LIMIT 20",
               "vector_dims(v), octet_length(vector_send(v)), pg_column_size(v) FROM wide WHERE id <= 20 ORDER BY id",
               "vector_dims(v), v FROM wide WHERE id <= 20 ORDER BY v", "pg_column_size(v) FROM small ORDER BY id"]
    plain = [Case(f"SELECT {query}") for query in queries]
    return plain + [Case(f"SET enable_seqscan = off; SELECT {query}") for query in queries] + [Case("RESET enable_seqscan")]


def catalog():
    """What the catalogs say of everything that pgvector declares for the type must hold here too."""
    in_type = "'vector'::regtype"
    return [
        Case("SELECT typlen, typbyval, typcategory, typispreferred, typdelim, typalign, typstorage, typinput::text, typoutput::text,"
             f" typreceive::text, typsend::text, typmodin::text, typmodout::text, typcollation FROM pg_type WHERE oid = {in_type}"),
        Case("SELECT proname, pg_get_function_identity_arguments(oid), prorettype::regtype, provolatile, proisstrict, proparallel, procost,"
             f" prokind, proleakproof FROM pg_proc WHERE ({in_type} = ANY (proargtypes) OR prorettype = {in_type})"
             " AND proname !~ '(halfvec|sparsevec|^hybrid)' ORDER BY 1, 2"),
        Case("SELECT oprname, oprleft::regtype, oprright::regtype, oprresult::regtype, (SELECT proname FROM pg_proc p WHERE p.oid = oprcode), oprcom::regoperator, oprnegate::regoperator,"
             f" oprrest, oprjoin, oprcanhash, oprcanmerge FROM pg_operator WHERE oprleft = {in_type} ORDER BY 1"),
        Case("SELECT castsource::regtype, casttarget::regtype, castfunc::regprocedure, castcontext, castmethod FROM pg_cast"
             f" WHERE {in_type} IN (castsource, casttarget) AND (castsource::regtype || ' ' || casttarget::regtype) !~ 'halfvec|sparsevec'"
             " ORDER BY 1::text, 2::text"),
        Case("SELECT aggfnoid::regprocedure, aggtransfn, aggfinalfn, aggcombinefn, aggtranstype::regtype, agginitval, aggfinalmodify, proparallel"
             f" FROM pg_aggregate JOIN pg_proc p ON p.oid = aggfnoid WHERE {in_type} = ANY (proargtypes) ORDER BY 1::text"),
        Case("SELECT opcname, opcdefault, amopstrategy, amopopr::regoperator FROM pg_opclass JOIN pg_amop ON amopfamily = opcfamily"
             " WHERE opcname = 'vector_ops' ORDER BY amopstrategy"),
    ]


def generated(rng, count):
    makers = [literal, noise, number_forms, hexadecimal, float_bits, double_text, distance, distance, pair, array]
    return [rng.choice(makers)(rng) for _ in range(count)]


def literal(rng):
    spaced = lambda text: rng.choice(SPACES) + text + rng.choice(SPACES)
    numbers = [spaced(rng.choice([rng.choice(EDGE_NUMBERS[:30]), repr(rng.gauss(0, 10))])) for _ in range(rng.randint(1, 6))]
    text = spaced("[" + ",".join(numbers) + "]")
    return Case(f"SELECT v, vector_send(v) FROM (SELECT {quote(text)}::vector v) s")


def noise(rng):
    text = "".join(rng.choice("0123456789[],,..eE+-xXpnaif \t") for _ in range(rng.randint(0, 12)))
    return Case(f"SELECT {quote(rng.choice(['[', '']) + text + rng.choice([']', '']))}::vector")


def number_forms(rng):
    digits = lambda low, high: "".join(rng.choice("0123456789") for _ in range(rng.randint(low, high)))
    numbers = []
    for _ in range(8):
        number = rng.choice(["", "-", "+"]) + digits(0, 25) + rng.choice([".", ""]) + digits(0, 25)
        numbers.append(number + rng.choice(["", "", f"e{rng.choice(['', '-', '+'])}{digits(1, 2)}"]))
    good = [number for number in numbers if any(letter.isdigit() for letter in number.split("e")[0])] or ["0"]
    return Case(f"SELECT v, vector_send(v) FROM (SELECT {quote('[' + ','.join(good) + ']')}::vector v) s")


def hexadecimal(rng):
    digits = lambda low, high: "".join(rng.choice("0123456789abcdefABCDEF" + "0" * 20) for _ in range(rng.randint(low, high)))
    number = lambda: rng.choice(["", "-"]) + "0x" + digits(1, 20) + rng.choice([".", "." + digits(1, 20), ""])
    numbers = [number() + rng.choice(["", f"p{rng.randint(-170, 40)}", f"P+{rng.randint(0, 40)}"]) for _ in range(4)]
    return Case(f"SELECT v, vector_send(v) FROM (SELECT {quote('[' + ','.join(numbers) + ']')}::vector v) s")


def float_bits(rng):
    values = [struct.unpack("f", struct.pack("I", rng.getrandbits(32)))[0] for _ in range(20)]
    finite = [value for value in values if value - value == 0] or [0.0]
    return Case(f"SELECT v, vector_send(v), v::real[] FROM (SELECT {vector(finite)} v) s")


def double_text(rng):
    """Decimals next to half-way points between two floats, where rounding twice shows."""
    values = []
    for _ in range(8):
        bits = rng.getrandbits(31) % 0x7F000000
        low, high = (struct.unpack("f", struct.pack("I", bits + step))[0] for step in (0, 1))
        middle = (low + high) / 2
        values.append(rng.choice([repr(middle), f"{middle:.60g}", f"{middle:.60g}" + "1" if "." in f"{middle:.60g}" and "e" not in f"{middle:.60g}" else repr(middle)]))
    return Case(f"SELECT v, vector_send(v) FROM (SELECT {quote('[' + ','.join(values) + ']')}::vector v) s")


def random_values(rng, dim):
    size = 10 ** rng.uniform(-5, 5)
    single = lambda value: struct.unpack("f", struct.pack("f", value))[0]
    return [single(rng.gauss(0, size)) for _ in range(dim)]


def distance(rng):
    dim = rng.choice([1, 2, 3, 4, 7, 8, 15, 16, 17, 30, 31, 33, 64, 100, 384])
    a, b = random_values(rng, dim), random_values(rng, dim)
    terms = sum(abs(x * y) for x, y in zip(a, b))
    scale = {"<->": 0.0, "<+>": 0.0, "<#>": terms, "<=>": 1.0}
    operator = rng.choice(list(scale))
    return Case(f"SELECT {vector(a)} {operator} {vector(b)}", scale[operator])


def pair(rng):
    dim = rng.randint(1, 40)
    a, b = random_values(rng, dim), random_values(rng, rng.choice([dim, dim, dim, rng.randint(1, 40)]))
    call = rng.choice(["{a} + {b}", "{a} - {b}", "{a} * {b}", "{a} || {b}", "vector_cmp({a}, {b})", "{a} < {b}", "l2_normalize({a})",
                       "binary_quantize({a})", "subvector({a}, {i}, {j})", "vector_dims({a})", "{a} >= {b}", "{a} <-> {b} > -1"])
    return Case("SELECT " + call.format(a=vector(a), b=vector(b), i=rng.randint(-3, 45), j=rng.randint(-3, 45)))


def array(rng):
    values = random_values(rng, rng.randint(1, 20))
    kind = rng.choice(["real[]", "double precision[]", "numeric[]"])
    items = ",".join(repr(value * rng.choice([1, 1, 1e3, 1.0000001])) for value in values)
    return Case(f"SELECT v, vector_send(v) FROM (SELECT '{{{items}}}'::{kind}::vector({len(values)}) v) s")
