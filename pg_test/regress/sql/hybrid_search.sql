-- Searches as people write them. Rows come in exact order of distance, as many as are asked for.
CREATE SCHEMA hybrid_search;
SET search_path = hybrid_search, public;
-- One thread builds the same graph each time.
SET max_parallel_maintenance_workers = 0;

-- 12,000 rows on a grid of 110 columns; a fraction lies beside a point, so that distances differ.
CREATE FUNCTION at(x double precision) RETURNS vector IMMUTABLE PARALLEL SAFE LANGUAGE sql AS $$
    SELECT ARRAY[floor(x)::integer % 110 - 55 + (x - floor(x)), floor(x / 110) - 55 + (x - floor(x)) * 0.6]::vector
$$;
CREATE TABLE t (id integer PRIMARY KEY, category integer, e vector(2));
INSERT INTO t SELECT i, i % 10, at(i) FROM generate_series(1, 12000) i;
CREATE INDEX t_e ON t USING hybrid (e) WITH (segment_rows = 5000);
ANALYZE t;
SELECT kind, state, rows FROM hybrid_segments('t_e');

SELECT id FROM t ORDER BY e <-> at(5100.2) LIMIT 5;
SELECT id FROM t ORDER BY e <-> at(5100.2) LIMIT 5 OFFSET 3;
SELECT id FROM t ORDER BY e <-> at(5100.2) LIMIT 0;
SELECT count(*), round(min(d)), round(max(d)) FROM (SELECT e <-> at(12000.3) AS d FROM t ORDER BY e <-> at(12000.3) LIMIT 20 OFFSET 200) s;
SELECT id, round((e <-> at(6000.2))::numeric, 1) AS d FROM t ORDER BY e <-> at(6000.2) LIMIT 3;
-- The distance may be wanted without being sorted by, and the other way round; the constant may come first.
SELECT id FROM t ORDER BY at(5100.2) <-> e LIMIT 3;
SELECT id, e <-> at(5101) < 1.1 AS near FROM t ORDER BY e <-> at(5100.2) LIMIT 2;
SELECT id FROM t ORDER BY l2_distance(e, at(5100.2)) LIMIT 3;
-- Filters: beside the index, and on the distance.
SELECT id FROM t WHERE category = 3 ORDER BY e <-> at(5100.2) LIMIT 5;
SELECT id FROM t WHERE category = 3 AND id > 5200 ORDER BY e <-> at(5100.2) LIMIT 5;
SELECT count(*) FROM t WHERE e <-> at(5100.2) < 2.1;
SELECT id FROM t WHERE e <-> at(5100.2) < 1.3 ORDER BY e <-> at(5100.2);
SELECT id FROM t WHERE e <-> at(5100.2) > 5.05 ORDER BY e <-> at(5100.2) LIMIT 3;
SELECT id FROM t WHERE id = 11000 ORDER BY e <-> at(5100.2) LIMIT 3;
SELECT id FROM t WHERE id < 0 ORDER BY e <-> at(5100.2) LIMIT 3;
-- A filter that few rows pass, without another index: the stream goes on to the end.
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SELECT test_plan($$SELECT id FROM t WHERE id + 0 = 11990 ORDER BY e <-> at(5100.2) LIMIT 3$$);
SELECT id FROM t WHERE id + 0 = 11990 ORDER BY e <-> at(5100.2) LIMIT 3;
SELECT id FROM t WHERE id + 0 IN (5, 7000, 11990) ORDER BY e <-> at(5100.2) LIMIT 3;
-- As many as there are, in order, each once. Rows that the graph's first rounds miss are lost: not one in a hundred.
SET enable_sort = off;
CREATE FUNCTION stream(sql text, OUT enough boolean, OUT once boolean, OUT ordered boolean) LANGUAGE sql AS $$
    SELECT cardinality(ids) >= 11880, cardinality(ids) = (SELECT count(DISTINCT id) FROM unnest(ids) id),
        distances = (SELECT array_agg(d ORDER BY d) FROM unnest(distances) d) FROM test_by_index(sql)
$$;
SELECT * FROM stream('SELECT id, e <-> at(-5) FROM t ORDER BY e <-> at(-5)');
SELECT * FROM stream('SELECT id, e <-> at(6000.2) FROM t ORDER BY e <-> at(6000.2)');
SELECT * FROM stream('SELECT id, e <-> at(-5) FROM t ORDER BY e <-> at(-5) LIMIT 11900');
-- The same in little memory: the scan goes over the index several times.
SET work_mem = '64kB';
SELECT * FROM stream('SELECT id, e <-> at(-5) FROM t ORDER BY e <-> at(-5)');
SELECT * FROM stream('SELECT id, e <-> at(6000.2) FROM t ORDER BY e <-> at(6000.2)');
RESET work_mem;
-- Any ef_search.
SELECT ef, count(DISTINCT id) FROM (SELECT ef, set_config('hybrid.ef_search', ef::text, false) FROM (VALUES (1), (2), (5), (40), (10000)) v(ef)) v,
    LATERAL (SELECT id FROM t WHERE set_config IS NOT NULL ORDER BY e <-> at(5100.2) LIMIT 3) s GROUP BY ef ORDER BY ef;
RESET hybrid.ef_search;
RESET enable_sort;
RESET enable_bitmapscan;
RESET enable_seqscan;

-- Cursors.
BEGIN;
DECLARE c CURSOR FOR SELECT round(e <-> at(5100.2)) AS d, id / 10000 AS zero FROM t ORDER BY e <-> at(5100.2) LIMIT 9000;
FETCH 2 FROM c;
FETCH NEXT FROM c;
MOVE FORWARD 500 IN c;
FETCH 2 FROM c;
MOVE FORWARD ALL IN c;
FETCH NEXT FROM c;
FETCH PRIOR FROM c;
ROLLBACK;
BEGIN;
SELECT test_plan($$DECLARE c SCROLL CURSOR FOR SELECT id FROM t ORDER BY e <-> at(5100.2) LIMIT 50$$);
DECLARE c SCROLL CURSOR FOR SELECT id FROM t ORDER BY e <-> at(5100.2) LIMIT 50;
FETCH 3 FROM c;
FETCH BACKWARD 2 FROM c;
FETCH LAST FROM c;
FETCH ABSOLUTE 2 FROM c;
FETCH FIRST FROM c;
COMMIT;
BEGIN;
DECLARE c CURSOR WITH HOLD FOR SELECT id FROM t ORDER BY e <-> at(5100.2) LIMIT 50;
FETCH 2 FROM c;
COMMIT;
FETCH 2 FROM c;
CLOSE c;
-- Whether a statement about a cursor's row concerns so many rows. A server that forgets ctids, which shows in plans,
-- refuses it.
CREATE FUNCTION of_cursor(statement text, wanted integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    forgets boolean := NOT EXISTS (SELECT FROM test_plan('SELECT ctid FROM t ORDER BY e <-> at(1) LIMIT 1') line
        WHERE line ~ 'Index Scan using t_e');
    affected integer;
BEGIN
    EXECUTE statement;
    GET DIAGNOSTICS affected = ROW_COUNT;
    RETURN affected = wanted;
EXCEPTION WHEN data_exception OR invalid_parameter_value OR internal_error THEN
    RETURN forgets;
END $$;
-- What a cursor shows does not change under it.
BEGIN;
DECLARE c CURSOR FOR SELECT id FROM t ORDER BY e <-> at(5100.2) LIMIT 9000;
FETCH 2 FROM c;
DELETE FROM t WHERE e <-> at(5100.2) < 3;
INSERT INTO t SELECT -i, 0, at(5100.2) FROM generate_series(1, 5) i;
FETCH 3 FROM c;
SELECT id FROM t ORDER BY e <-> at(5100.2), id LIMIT 7;
SELECT of_cursor($$UPDATE t SET category = 99 WHERE CURRENT OF c$$, 0);
ROLLBACK;
BEGIN;
DECLARE c CURSOR FOR SELECT id FROM t ORDER BY e <-> at(5100.2) LIMIT 9000;
MOVE 3 IN c;
SELECT of_cursor($$DELETE FROM t WHERE CURRENT OF c$$, 1);
DELETE FROM t WHERE id = 5210;
COMMIT;

-- Prepared, with custom and generic plans.
PREPARE nearest(vector, integer) AS SELECT id FROM t ORDER BY e <-> $1 LIMIT $2;
SET plan_cache_mode = force_custom_plan;
EXECUTE nearest(at(5100.2), 2);
EXECUTE nearest(at(5200.2), 1);
SET plan_cache_mode = force_generic_plan;
SELECT test_plan($$EXECUTE nearest(at(5100.2), 2)$$);
EXECUTE nearest(at(5100.2), 2);
EXECUTE nearest(at(5200.2), 1);
EXECUTE nearest('[1,2,3]', 1);
EXECUTE nearest(at(5200.2), 1);
RESET plan_cache_mode;

-- Joins, LATERAL, subqueries: rescans.
CREATE TABLE q (n integer, v vector(2), category integer);
INSERT INTO q SELECT i, at(i * 1000 + 50.2), i FROM generate_series(1, 5) i;
SET enable_seqscan = off;
SELECT test_plan($$SELECT n, s.id FROM q, LATERAL (SELECT id FROM t ORDER BY e <-> q.v LIMIT 2) s$$);
SELECT n, array_agg(s.id) FROM q, LATERAL (SELECT id FROM t ORDER BY e <-> q.v LIMIT 2) s GROUP BY n ORDER BY n;
SELECT n, array_agg(s.id) FROM q LEFT JOIN LATERAL (SELECT id FROM t WHERE t.category = q.category ORDER BY e <-> q.v LIMIT 2) s ON true
    GROUP BY n ORDER BY n;
SELECT n, (SELECT id FROM t ORDER BY e <-> q.v LIMIT 1) FROM q ORDER BY n;
SELECT t.id, q.n FROM t JOIN q USING (category) ORDER BY t.e <-> at(3050.2) LIMIT 3;
SELECT id FROM t ORDER BY e <-> (SELECT e FROM t WHERE id = 77) LIMIT 1;
SELECT id FROM t ORDER BY e <-> (SELECT e FROM t WHERE id = -1) LIMIT 0;
SELECT a.id, b.id FROM t a, LATERAL (SELECT id FROM t b WHERE b.id <> a.id ORDER BY b.e <-> a.e LIMIT 1) b WHERE a.id IN (1, 11999);
RESET enable_seqscan;
(SELECT id FROM t ORDER BY e <-> at(5100.2) LIMIT 2) UNION ALL (SELECT id FROM t ORDER BY e <-> at(5200.2) LIMIT 2);
SELECT id FROM ((SELECT id, e FROM t ORDER BY e <-> at(5100.2) LIMIT 2)
    UNION ALL (SELECT id, e FROM t ORDER BY e <-> at(5200.2) LIMIT 2)) u ORDER BY e <-> at(5210.1) LIMIT 2;
SELECT min(id), max(id), count(*) FROM (SELECT id FROM t ORDER BY e <-> at(5100.2) LIMIT 11) s;
SELECT round(min(e <-> at(5100.2))::numeric, 2) AS min, round(max(e <-> at(5100.2))::numeric, 2) AS max FROM t;
WITH near AS MATERIALIZED (SELECT id, category FROM t ORDER BY e <-> at(5100.2) LIMIT 100)
SELECT category, count(*) FROM near GROUP BY 1 ORDER BY 1 LIMIT 3;
SELECT id, rank() OVER (ORDER BY e <-> at(5100.2)) FROM t LIMIT 3;
SELECT DISTINCT ON (e <-> at(5100.2)) id FROM t ORDER BY e <-> at(5100.2) LIMIT 2;
SELECT id FROM t ORDER BY e <-> at(5100.2) FETCH FIRST 2 ROWS WITH TIES;
BEGIN;
SELECT id FROM t ORDER BY e <-> at(5100.2) LIMIT 2 FOR UPDATE;
UPDATE t SET category = -1 WHERE id IN (SELECT id FROM t ORDER BY e <-> at(5100.2) LIMIT 2) RETURNING id;
DELETE FROM t USING (SELECT id FROM t ORDER BY e <-> at(5100.2) LIMIT 1) n WHERE t.id = n.id RETURNING t.id;
SELECT id FROM t ORDER BY e <-> at(5100.2) LIMIT 2;
ROLLBACK;
-- In a function, called again and again; in parallel workers.
CREATE FUNCTION nearest(v vector) RETURNS integer STABLE PARALLEL SAFE LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT id FROM t ORDER BY e <-> v LIMIT 1);
END $$;
SELECT count(*), count(DISTINCT nearest(e)), bool_and(nearest(e) = id) FROM t WHERE id % 40 = 0;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
SELECT count(*), count(DISTINCT nearest(e)), bool_and(nearest(e) = id) FROM t WHERE id % 40 = 0;
SELECT id FROM t ORDER BY e <-> at(5100.2) LIMIT 2;
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;
RESET max_parallel_workers_per_gather;

-- Partitions: Merge Append of the partitions' indexes.
CREATE TABLE p (id integer, e vector(2)) PARTITION BY HASH (id);
CREATE TABLE p_0 PARTITION OF p FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE p_1 PARTITION OF p FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE p_2 PARTITION OF p FOR VALUES WITH (MODULUS 3, REMAINDER 2);
INSERT INTO p SELECT i, at(i) FROM generate_series(1, 9000) i;
CREATE INDEX ON p USING hybrid (e);
ANALYZE p;
SELECT test_plan($$SELECT id FROM p ORDER BY e <-> at(4000.2) LIMIT 10$$);
SELECT id FROM p ORDER BY e <-> at(4000.2) LIMIT 10;
SELECT count(*), round(min(d)), round(max(d)) FROM (SELECT e <-> at(4000.2) AS d FROM p ORDER BY e <-> at(4000.2) LIMIT 10 OFFSET 3000) s;
CREATE TABLE parent (id integer, e vector(2));
CREATE TABLE child () INHERITS (parent);
INSERT INTO parent SELECT i, at(i) FROM generate_series(1, 6000, 2) i;
INSERT INTO child SELECT i, at(i) FROM generate_series(2, 6000, 2) i;
CREATE INDEX ON parent USING hybrid (e);
CREATE INDEX ON child USING hybrid (e);
ANALYZE parent, child;
SELECT array_agg(id) FROM (SELECT id FROM parent ORDER BY e <-> at(1500.2) LIMIT 5) s;
SELECT array_agg(id) FROM (SELECT id FROM ONLY parent ORDER BY e <-> at(1500.2) LIMIT 5) s;

-- Numbers so unlike each other that a code of one byte tells little: rows may be missed, the order stays exact.
CREATE TABLE coarse (id integer, e vector(3));
INSERT INTO coarse SELECT i, format('[%s,%s,1]', i, i % 7 / 100.0)::vector FROM generate_series(1, 4000) i;
CREATE INDEX ON coarse USING hybrid (e);
SELECT ordered, once FROM test_compare('coarse', '<->', 3, 3000, 3);

-- Recall of random vectors, for each metric: built, inserted, and half and half.
CREATE TABLE r (id integer, e vector(16));
INSERT INTO r SELECT i, test_vector(i, 16) FROM generate_series(1, 3000) i;
CREATE INDEX r_l2 ON r USING hybrid (e vector_l2_ops);
CREATE INDEX r_ip ON r USING hybrid (e vector_ip_ops);
CREATE INDEX r_cosine ON r USING hybrid (e vector_cosine_ops);
CREATE INDEX r_l1 ON r USING hybrid (e vector_l1_ops);
INSERT INTO r SELECT i, test_vector(i, 16) FROM generate_series(3001, 3600) i;
SELECT op, t.ordered, t.once, t.recall >= 0.9 AS recall_90 FROM unnest(ARRAY['<->', '<#>', '<=>', '<+>']) op, test_compare('r', op, 16, 10) t;
SET hybrid.ef_search = 400;
SELECT op, t.ordered, t.once, t.same FROM unnest(ARRAY['<->', '<#>', '<=>', '<+>']) op, test_compare('r', op, 16, 100) t;
RESET hybrid.ef_search;
SELECT recall >= 0.9 AS recall_90 FROM hybrid_recall('r_cosine', 20, 10);

-- Rows in the order of their vectors, linked by several threads at once: each can be reached. Threads that took runs of
-- neighboring rows left up to one in sixty out.
RESET max_parallel_maintenance_workers;
CREATE TABLE line (id integer, e vector(2));
INSERT INTO line SELECT i, ARRAY[i / 100.0, 1]::vector FROM generate_series(1, 12000) i;
CREATE INDEX line_e ON line USING hybrid (e);
SELECT rows, unreachable <= 12 AS reachable FROM hybrid_stats('line_e');

SET client_min_messages = warning;
DROP SCHEMA hybrid_search CASCADE;
