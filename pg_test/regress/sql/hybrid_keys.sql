-- Key columns: conditions inside the index give the rows that the same query gives without it.
CREATE SCHEMA hybrid_keys;
SET search_path = hybrid_keys, public;
SET timezone = 'UTC';

-- Which columns an index may have.
CREATE TABLE t (id integer PRIMARY KEY, e vector(4), e2 vector(4), i2 smallint, i4 integer, i8 bigint, b boolean, d date,
    ts timestamp, tz timestamptz, txt text, f float8, iv interval, arr integer[]);
CREATE INDEX ON t USING hybrid (i4, e);
CREATE INDEX ON t USING hybrid (i4);
SELECT test_error('CREATE INDEX ON t USING hybrid (e, e2)');
SELECT test_error('CREATE INDEX ON t USING hybrid (e, i4, e2 vector_cosine_ops)');
CREATE INDEX ON t USING hybrid (e, txt);
CREATE INDEX ON t USING hybrid (e, f);
CREATE INDEX ON t USING hybrid (e, i4, i8, i2, b, d, ts, tz, id, (i4 + 1));
CREATE INDEX ON t USING hybrid (e, i4 DESC);
CREATE INDEX ON t USING hybrid (e) INCLUDE (i4);
CREATE INDEX ON t USING hybrid (e, i4 int8_ops);
ALTER TABLE t ADD EXCLUDE USING hybrid (i4 WITH =);
SELECT opcname, opcintype::regtype, opcdefault, amvalidate(c.oid) FROM pg_opclass c JOIN pg_am a ON a.oid = opcmethod
    WHERE amname = 'hybrid' AND opcname !~ 'vector' ORDER BY 1;
SELECT opfname, count(*), count(DISTINCT (amoplefttype, amoprighttype)) FROM pg_amop o JOIN pg_opfamily f ON f.oid = amopfamily
    JOIN pg_am a ON a.oid = opfmethod WHERE amname = 'hybrid' AND opfname !~ 'vector' GROUP BY 1 ORDER BY 1;

-- Values of all kinds, ends of ranges and infinities among them; a tenth of each column is NULL; some vectors are equal
-- and have other keys, some are NULL.
CREATE FUNCTION fill(first integer, last integer) RETURNS void LANGUAGE sql AS $$
    INSERT INTO t SELECT i,
        CASE WHEN i % 97 = 0 THEN NULL WHEN i % 5 = 0 THEN test_vector(i % 40, 4) ELSE test_vector(i, 4) END,
        test_vector(-i, 4),
        CASE WHEN hashint4(i) % 10 = 0 THEN NULL WHEN i % 101 = 0 THEN 32767 WHEN i % 103 = 0 THEN -32768 ELSE i % 41 - 20 END,
        CASE WHEN hashint4(i + 1) % 10 = 0 THEN NULL WHEN i % 101 = 0 THEN 2147483647 WHEN i % 103 = 0 THEN -2147483648
            WHEN i % 3 = 0 THEN i % 41 - 20 ELSE i * 100 END,
        CASE WHEN hashint4(i + 2) % 10 = 0 THEN NULL WHEN i % 101 = 0 THEN 9223372036854775807
            WHEN i % 103 = 0 THEN -9223372036854775808 WHEN i % 107 = 0 THEN 2147483648 WHEN i % 109 = 0 THEN -32769
            WHEN i % 3 = 0 THEN i % 41 - 20 ELSE i::bigint * 1000000000 END,
        CASE WHEN hashint4(i + 3) % 10 <> 0 THEN i % 3 = 0 END,
        CASE WHEN hashint4(i + 4) % 10 = 0 THEN NULL WHEN i % 101 = 0 THEN 'infinity' WHEN i % 103 = 0 THEN '-infinity'
            WHEN i % 107 = 0 THEN '5874897-12-31' WHEN i % 109 = 0 THEN '4713-01-01 BC' ELSE date '2026-03-20' + i % 20 END,
        CASE WHEN hashint4(i + 5) % 10 = 0 THEN NULL WHEN i % 101 = 0 THEN 'infinity' WHEN i % 103 = 0 THEN '-infinity'
            WHEN i % 107 = 0 THEN '294276-12-31 23:59:59.999999' WHEN i % 109 = 0 THEN '4713-01-01 BC'
            WHEN i % 3 = 0 THEN timestamp '2026-03-20' + (i % 20) * interval '1 day'
            ELSE timestamp '2026-03-20' + (i % 480) * interval '1 hour' END,
        CASE WHEN hashint4(i + 6) % 10 = 0 THEN NULL WHEN i % 101 = 0 THEN 'infinity' WHEN i % 103 = 0 THEN '-infinity'
            WHEN i % 107 = 0 THEN '294276-12-31 00:00:00+00' WHEN i % 109 = 0 THEN '4713-01-02 00:00:00+00 BC'
            WHEN i % 3 = 0 THEN timestamptz '2026-03-20 00:00+00' + (i % 20) * interval '1 day'
            ELSE timestamptz '2026-03-20 00:00+00' + (i % 480) * interval '1 hour' END
    FROM generate_series(first, last) i
$$;
SELECT fill(1, 1500);
CREATE INDEX t_keys ON t USING hybrid (e vector_l2_ops, i2, i4, i8, b, d, ts, tz, (i4 % 7));
-- Half of the rows are built, half inserted.
SELECT fill(1501, 3000);
VACUUM ANALYZE t;
SELECT * FROM hybrid_check('t_keys', true);

-- Compares the rows that a condition leaves, by the index and without it. Returns how many there are.
CREATE FUNCTION compare(condition text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    query text := format('SELECT id, e <-> ''[0.1,0.2,0.3,0.4]'' AS d FROM t WHERE %s ORDER BY e <-> ''[0.1,0.2,0.3,0.4]''', condition);
    found record;
    exact record;
    plan text := '';
    line text;
BEGIN
    found := test_by_index(query);
    -- Rows without a vector are not in the index.
    exact := test_by_table(format('SELECT * FROM (%s) s WHERE s.d IS NOT NULL', query));
    IF found.distances IS DISTINCT FROM exact.distances
        OR EXISTS (SELECT unnest(found.ids) EXCEPT SELECT unnest(exact.ids)) THEN
        RETURN format('DIFFERENT: %s by the index, %s by the table', cardinality(found.ids), cardinality(exact.ids));
    END IF;
    PERFORM set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true);
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        plan := plan || line;
    END LOOP;
    PERFORM set_config('enable_seqscan', 'on', true), set_config('enable_sort', 'on', true);
    RETURN coalesce(cardinality(found.ids), 0)
        || CASE WHEN plan !~ 'Index Cond' THEN ' no index condition' WHEN plan ~ 'Filter' THEN ' filter' ELSE '' END;
END $$;

-- Each type with each it compares with, all operators, values of interest. `flag = true` is a condition of the index from
-- version 16 on.
CREATE TABLE arguments (family text, type text, value text);
INSERT INTO arguments SELECT 'integer', type, value FROM unnest(ARRAY['smallint', 'integer', 'bigint']) type,
    unnest(ARRAY['0', '20', '-20', '7', '32767', '-32768', '2147483647', '-2147483648', '2147483648', '-32769',
        '9223372036854775807', '-9223372036854775808', '300000']) value
    WHERE CASE type WHEN 'smallint' THEN value::numeric BETWEEN -32768 AND 32767
        WHEN 'integer' THEN value::numeric BETWEEN -2147483648 AND 2147483647 ELSE true END;
INSERT INTO arguments SELECT 'datetime', type, value FROM unnest(ARRAY['date', 'timestamp', 'timestamptz']) type,
    unnest(ARRAY['2026-03-25', '2026-03-25 00:00:01', '2026-03-29 02:30', '2026-03-24 23:59:59.999999', 'infinity',
        '-infinity', '5874897-12-31', '294276-12-31', '4713-01-01 BC', '4713-01-03 BC']) value
    WHERE value <> '5874897-12-31' OR type = 'date';
INSERT INTO arguments VALUES ('boolean', 'boolean', 'true'), ('boolean', 'boolean', 'false');
CREATE TABLE columns (family text, name text);
INSERT INTO columns VALUES ('integer', 'i2'), ('integer', 'i4'), ('integer', 'i8'), ('boolean', 'b'), ('datetime', 'd'),
    ('datetime', 'ts'), ('datetime', 'tz'), ('integer', '(i4 % 7)');
CREATE FUNCTION compare_all(families text[]) RETURNS TABLE (family text, queries bigint, rows bigint, other text[]) LANGUAGE sql AS $$
    SELECT family, count(*), sum(substring(result from '^\d+')::integer),
        array_agg(condition || ': ' || result ORDER BY condition) FILTER (WHERE result !~ CASE
            WHEN condition ~ '^b = ' AND current_setting('server_version_num')::integer < 160000 THEN '^\d+ no index condition$'
            ELSE '^\d+$' END)
    FROM (SELECT c.family, format('%s %s %s %L', name, operator, type, value) AS condition,
            compare(format('%s %s %s %L', name, operator, type, value)) AS result
        FROM columns c JOIN arguments a USING (family), unnest(ARRAY['<', '<=', '=', '>=', '>']) operator
        WHERE family = ANY (families)) s
    GROUP BY 1 ORDER BY 1
$$;
SELECT * FROM compare_all(ARRAY['integer', 'boolean', 'datetime']);
-- The time zone decides how times with and without it compare; also on days that are longer or shorter, or not there.
SET timezone = 'America/St_Johns';
SELECT * FROM compare_all(ARRAY['datetime']);
SET timezone = 'Pacific/Kiritimati';
SELECT * FROM compare_all(ARRAY['datetime']);
SET timezone = 'Europe/Berlin';
SELECT * FROM compare_all(ARRAY['datetime']);
SET timezone = 'Asia/Manila';
SELECT * FROM compare_all(ARRAY['datetime']);
SET timezone = 'FAR-100';
SELECT * FROM compare_all(ARRAY['datetime']);
SET timezone = 'UTC';

-- NULL, ranges, contradictions, several columns.
SELECT condition, compare(condition) FROM unnest(ARRAY[
    'i2 IS NULL', 'i4 IS NULL', 'i8 IS NOT NULL', 'b IS NULL', 'd IS NOT NULL', 'ts IS NULL', 'tz IS NULL AND d IS NULL',
    'i4 = (SELECT NULL::integer)', 'tz > (SELECT NULL::date)', 'i4 IS NULL AND i4 = 3', 'i4 IS NULL AND i4 IS NOT NULL',
    'i4 BETWEEN 0 AND 10', 'i4 BETWEEN 10 AND 0', 'i4 > 5 AND i4 < 6', 'i4 > 5 AND i4 <= 6', 'i8 >= 6 AND i8 <= 5',
    'i4 = 5::bigint AND i4 = 5::smallint', 'tz BETWEEN ''2026-03-22'' AND ''2026-03-23''', 'd = ''2026-03-22'' AND ts > d',
    'i4 % 7 = 3', 'i4 % 7 = 3 AND i2 > 0 AND b IS NOT NULL', 'b >= true', 'b > false', 'b < true AND b > false', 'b = b',
    'i2 > 0 AND i4 > 0 AND i8 > 0 AND d > ''2026-03-25'' AND ts > ''2026-03-25'' AND tz > ''2026-03-25''',
    'e IS NOT NULL AND i4 > 0', 'e IS NOT NULL', 'i4 > 0 AND id % 2 = 0', 'i4 = (SELECT 9)', 'i4 = 7 OR i2 = 7',
    'i4 IN (1, 2, 3)', 'i4 = ANY (ARRAY[9, 12])', '(i4, i2) > (5, 5)', 'i4 <> 9', 'NOT i4 = 9', 'i4 IS DISTINCT FROM 9',
    'i4::numeric = 9', 'i4 = 9.0', 'i4 = i2', 'i4 < i8', '9 > i4', 'd > current_date - 36500', 'i4 > random() * 0']) condition;
-- A contradiction that later versions see before they look for an index.
SELECT count(*) FROM (SELECT id FROM t WHERE i8 = 5 AND i8 = 6 ORDER BY e <-> '[0.1,0.2,0.3,0.4]') s;
-- Rows without a vector are not in the index, so no plan asks it for them.
SET enable_seqscan = off;
SET enable_sort = off;
SELECT test_plan($$SELECT count(*) FROM t WHERE e IS NULL$$);
SELECT count(*) FROM t WHERE e IS NULL;
SELECT test_plan($$SELECT id FROM t WHERE e IS NULL ORDER BY e <-> '[0,0,0,0]' LIMIT 3$$);
SELECT count(*) FROM (SELECT id FROM t WHERE e IS NULL ORDER BY e <-> '[0,0,0,0]' LIMIT 30) s;
SELECT test_plan($$SELECT count(*) FROM t WHERE e IS NULL AND i4 = 9$$);
SELECT test_plan($$SELECT count(*) FROM t WHERE i4 = 9$$);
SELECT count(*) FROM t WHERE i4 = 9;
SELECT test_plan($$SELECT count(*) FROM t WHERE i4 IS NULL$$);
SELECT test_plan($$SELECT i4 FROM t WHERE i4 = 9 ORDER BY i4$$);
SELECT test_plan($$SELECT id FROM t WHERE i4 = 9 ORDER BY e <-> '[0,0,0,0]' DESC LIMIT 3$$);
SELECT test_plan($$SELECT min(i4), max(i4) FROM t$$);
SELECT test_plan($$SELECT count(*) FROM t a JOIN t b ON a.i4 = b.i4$$);
SELECT test_plan($$DELETE FROM t WHERE i4 = 9$$);
-- Conditions of joins are conditions of the index where the inner side is ordered.
SELECT test_plan($$SELECT q.id, n.id FROM (VALUES (1, 9), (2, 12)) q(id, k),
    LATERAL (SELECT id FROM t WHERE i4 = q.k ORDER BY e <-> '[0,0,0,0]' LIMIT 3) n$$);
SELECT q.id, n.id FROM (VALUES (1, 9), (2, 12), (3, NULL)) q(id, k),
    LATERAL (SELECT id FROM t WHERE i4 = q.k ORDER BY e <-> '[0,0,0,0]' LIMIT 3) n;
SELECT test_plan($$SELECT id FROM t WHERE i4 >= 0 AND tz < timestamp '2026-03-24' AND id % 2 = 0 ORDER BY e <-> '[0,0,0,0]' LIMIT 3$$);
-- A NULL vector under a filter.
SELECT count(*), count(d) FROM (SELECT e <-> (SELECT NULL::vector) AS d FROM t WHERE i4 BETWEEN 0 AND 9 ORDER BY 1) s;

-- Prepared statements.
PREPARE by_range(integer, integer) AS SELECT count(*) FROM (SELECT id FROM t WHERE i4 BETWEEN $1 AND $2 ORDER BY e <-> '[0,0,0,0]') s;
SET plan_cache_mode = force_generic_plan;
SELECT test_plan($$EXECUTE by_range(0, 9)$$);
EXECUTE by_range(0, 9);
EXECUTE by_range(9, 0);
EXECUTE by_range(NULL, 9);
PREPARE by_flag(boolean) AS SELECT count(*) FROM (SELECT id FROM t WHERE b = $1 ORDER BY e <-> '[0,0,0,0]') s;
SELECT test_plan($$EXECUTE by_flag(true)$$);
EXECUTE by_flag(true);
EXECUTE by_flag(NULL);
RESET plan_cache_mode;
-- A cursor, and a limit beyond the rows that pass.
BEGIN;
DECLARE c CURSOR FOR SELECT i4 FROM t WHERE i4 = 9 ORDER BY e <-> '[0,0,0,0]';
FETCH 2 FROM c;
MOVE FORWARD ALL IN c;
COMMIT;
RESET enable_seqscan;
RESET enable_sort;
SELECT count(*) AS by_table FROM t WHERE i4 BETWEEN 0 AND 9 AND e IS NOT NULL;
SELECT count(*) AS by_table FROM t WHERE b AND e IS NOT NULL;

-- Rows of one element with keys of their own, more than fit into it.
INSERT INTO t (id, e, i4) SELECT 10000 + i, '[9,9,9,9]', i FROM generate_series(1, 100) i;
SELECT condition, compare(condition) FROM unnest(ARRAY['i4 = 77 AND id > 10000', 'i4 BETWEEN 50 AND 60 AND id > 10000']) condition;
SELECT * FROM hybrid_check('t_keys', true);
-- Updates of keys, deletes, VACUUM, REINDEX.
UPDATE t SET i4 = i4 + 1000000 WHERE id % 3 = 0 AND i4 < 2000000;
UPDATE t SET tz = NULL WHERE id % 7 = 0;
DELETE FROM t WHERE id % 11 = 0;
SELECT * FROM hybrid_check('t_keys', true);
SELECT condition, compare(condition) FROM unnest(ARRAY['i4 > 1000000', 'i4 < 1000000', 'tz IS NULL', 'i4 % 7 = 3']) condition;
VACUUM t;
SELECT condition, compare(condition) FROM unnest(ARRAY['i4 > 1000000', 'i4 < 1000000', 'tz IS NULL', 'i4 % 7 = 3']) condition;
SELECT * FROM hybrid_check('t_keys', true);
REINDEX INDEX t_keys;
SELECT condition, compare(condition) FROM unnest(ARRAY['i4 > 1000000', 'i4 < 1000000', 'tz IS NULL', 'i4 % 7 = 3']) condition;
REINDEX INDEX CONCURRENTLY t_keys;
SELECT * FROM hybrid_check('t_keys', true);
ALTER TABLE t ALTER COLUMN i2 TYPE bigint;
SELECT compare('i2 > 3');
SELECT pg_get_indexdef('t_keys'::regclass);

-- The age key: options that need one, and the range that functions show.
CREATE TABLE a (id integer, e vector(2), n integer, at timestamptz, d date);
INSERT INTO a SELECT i, test_vector(i, 2), i, timestamptz '2026-01-01 00:00+00' + i * interval '1 day', '2027-01-01'::date + i FROM generate_series(1, 100) i;
CREATE INDEX a_no_age ON a USING hybrid (e, n) WITH (partition_interval = '1 day', recent_threshold = '1 day');
CREATE INDEX a_infinite ON a USING hybrid (e, n) WITH (recent_threshold = 'infinity', pending_rows = 0);
CREATE INDEX a_at ON a USING hybrid (e, n, at, d) WITH (partition_interval = '1 day', recent_threshold = '1000 years', pending_rows = 0);
CREATE INDEX a_d ON a USING hybrid (e, d) WITH (recent_threshold = 'infinity', pending_rows = 0);
CREATE INDEX a_none ON a USING hybrid (e) WITH (recent_threshold = 'infinity');
SELECT i, min_key, max_key, oldest_recent FROM unnest(ARRAY['a_infinite', 'a_at', 'a_d', 'a_none']) i, hybrid_segments(i::regclass), hybrid_stats(i::regclass);
SET timezone = 'Asia/Tokyo';
SELECT min_key, max_key FROM hybrid_segments('a_at');
SET timezone = 'UTC';
INSERT INTO a VALUES (0, '[0,0]', 0, '2025-12-01 00:00+00', 'infinity'), (101, '[0,0]', NULL, NULL, '-infinity');
SELECT i, min_key, max_key, oldest_recent FROM unnest(ARRAY['a_infinite', 'a_at', 'a_d']) i, hybrid_segments(i::regclass), hybrid_stats(i::regclass);
DELETE FROM a WHERE id IN (0, 101);
VACUUM a;
SELECT oldest_recent FROM hybrid_stats('a_at');
CREATE TABLE nulls (e vector(2), at timestamptz);
INSERT INTO nulls VALUES ('[1,2]', NULL);
CREATE INDEX nulls_e ON nulls USING hybrid (e, at) WITH (recent_threshold = 'infinity');
SELECT min_key, max_key, oldest_recent FROM hybrid_segments('nulls_e'), hybrid_stats('nulls_e');
-- Entries with other keys than the row: here since a function that should not change did.
CREATE FUNCTION drifting(n integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN n; END';
CREATE INDEX a_drifting ON a USING hybrid (e, drifting(n)) WITH (recent_threshold = 'infinity');
SELECT * FROM hybrid_check('a_drifting', true);
CREATE OR REPLACE FUNCTION drifting(n integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN n + (n = 7)::integer; END';
SELECT problem FROM hybrid_check('a_drifting', true);

-- Partitioned, unlogged, temporary, partial.
CREATE TABLE p (id integer, e vector(4), k integer, at timestamptz) PARTITION BY RANGE (at);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (MINVALUE) TO ('2026-02-01');
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM ('2026-02-01') TO (MAXVALUE);
INSERT INTO p SELECT i, test_vector(i, 4), i % 10, timestamptz '2026-01-01' + i * interval '1 hour' FROM generate_series(1, 1500) i;
CREATE INDEX p_e ON p USING hybrid (e, k, at);
ANALYZE p;
SET enable_seqscan = off;
SET enable_sort = off;
SELECT test_plan($$SELECT id FROM p WHERE k = 3 AND at < '2026-02-10' ORDER BY e <-> '[0,0,0,0]' LIMIT 5$$);
SELECT array_agg(id) FROM (SELECT id FROM p WHERE k = 3 AND at < '2026-02-10' ORDER BY e <-> '[0,0,0,0]' LIMIT 20) s;
RESET enable_seqscan;
RESET enable_sort;
SET enable_indexscan = off;
SELECT array_agg(id) FROM (SELECT id FROM p WHERE k = 3 AND at < '2026-02-10' ORDER BY e <-> '[0,0,0,0]' LIMIT 20) s;
RESET enable_indexscan;
CREATE UNLOGGED TABLE u (id integer, e vector(4), k integer);
CREATE INDEX u_e ON u USING hybrid (e, k);
INSERT INTO u SELECT i, test_vector(i, 4), i % 10 FROM generate_series(1, 500) i;
CREATE TEMPORARY TABLE w (id integer, e vector(4), k integer);
INSERT INTO w SELECT * FROM u;
CREATE INDEX w_e ON w USING hybrid (e, k) WHERE id > 250;
SET enable_seqscan = off;
SELECT count(*), min(k), max(k) FROM (SELECT k FROM u WHERE k = 4 ORDER BY e <-> '[0,0,0,0]') s;
SELECT test_plan($$SELECT k FROM w WHERE k = 4 AND id > 250 ORDER BY e <-> '[0,0,0,0]'$$);
SELECT count(*), min(k), max(k) FROM (SELECT k FROM w WHERE k = 4 AND id > 250 ORDER BY e <-> '[0,0,0,0]') s;
SELECT test_plan($$SELECT k FROM w WHERE k = 4 ORDER BY e <-> '[0,0,0,0]' LIMIT 1$$);
RESET enable_seqscan;
SELECT * FROM hybrid_check('u_e', true);
SELECT * FROM hybrid_check('w_e', true);

-- Which plan: few rows by the btree and a sort, thousands by the hybrid index, all by the table.
CREATE TABLE big (id integer, e vector(48), k integer, at timestamptz);
INSERT INTO big SELECT i, (test_vector(i, 8) || test_vector(i / 7, 40))::vector(48), hashint4(i) & 1023,
    timestamptz '2026-01-01' + i * interval '1 minute' FROM generate_series(1, 20000) i;
CREATE INDEX big_e ON big USING hybrid (e, k, at) WITH (m = 8, ef_construction = 32);
CREATE INDEX big_k ON big (k);
CREATE INDEX big_at ON big (at);
VACUUM ANALYZE big;
SET max_parallel_workers_per_gather = 0;
CREATE FUNCTION plan_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
    uses text := '';
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        uses := uses || coalesce(substring(line from '(?:Index Scan using|Index Scan on|Seq Scan on) \w+') || '; ', '');
    END LOOP;
    RETURN uses;
END $$;
CREATE FUNCTION q() RETURNS vector IMMUTABLE LANGUAGE sql AS 'SELECT test_vector(1, 48)';
SELECT condition, plan_of(format('SELECT id FROM big WHERE %s ORDER BY e <-> q() LIMIT 10', condition)) FROM unnest(ARRAY[
    'k = 7', 'k < 5', 'k < 512', 'at > ''2026-01-14 20:00''', 'at > ''2026-01-08''', 'at > ''2025-01-20''',
    'k = 7 AND at > ''2026-01-08''', 'true', 'id % 2 = 0', 'k IS NULL']) condition;
SELECT plan_of('SELECT id FROM big WHERE k < 512 ORDER BY e <-> q()');
SELECT plan_of('SELECT id FROM big ORDER BY e <-> q()');
-- What the index finds under filters of several shares, walking or reading: at least 9 of 10.
CREATE FUNCTION recall(condition text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    query text;
    found record;
    exact record;
    hits integer := 0;
BEGIN
    FOR i IN 1 .. 20 LOOP
        query := format('SELECT id, e <-> %L AS d FROM big WHERE %s ORDER BY e <-> %1$L LIMIT 10', test_vector(i * 37, 8) || test_vector(i * 11, 40), condition);
        found := test_by_index(query);
        exact := test_by_table(query);
        hits := hits + (SELECT count(*) FROM unnest(found.distances) d WHERE d <= exact.distances[10]);
    END LOOP;
    RETURN CASE WHEN hits >= 180 THEN 'well' ELSE hits::text END;
END $$;
SELECT condition, recall(condition) FROM unnest(ARRAY['true', 'k < 512', 'k < 128', 'k < 32', 'k < 8', 'at > ''2026-01-14''',
    'at > ''2026-01-10'' AND k < 256']) condition;

SET client_min_messages = warning;
DROP SCHEMA hybrid_keys CASCADE;
