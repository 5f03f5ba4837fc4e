-- Which plans use the index, and that none uses it in a way that gives wrong rows. amvalidate, progress, statistics.
CREATE SCHEMA hybrid_plan;
SET search_path = hybrid_plan, public;
CREATE TABLE t (id integer PRIMARY KEY, category integer, note text, e vector(3));
INSERT INTO t SELECT i, i % 500, 'note ' || i, CASE WHEN i % 1000 <> 0 THEN test_vector(i, 3) END FROM generate_series(1, 10000) i;
CREATE INDEX t_e ON t USING hybrid (e);
CREATE INDEX t_category ON t (category);
VACUUM ANALYZE t;

-- The planner chooses the index for a few nearest rows.
SELECT test_plan($$SELECT id FROM t ORDER BY e <-> '[1,2,3]' LIMIT 10$$);
SELECT test_plan($$SELECT id FROM t ORDER BY e <-> '[1,2,3]' LIMIT 100$$);
SELECT test_plan($$SELECT id FROM t WHERE category < 250 ORDER BY e <-> '[1,2,3]' LIMIT 10$$);
SELECT test_plan($$SELECT id FROM t WHERE note LIKE '%7%' ORDER BY e <-> '[1,2,3]' LIMIT 5$$);
SELECT test_plan($$SELECT id, e <-> '[1,2,3]' FROM t WHERE e <-> '[1,2,3]' < 0.5 ORDER BY e <-> '[1,2,3]' LIMIT 5$$);
SELECT test_plan($$SELECT t.id FROM t JOIN t c ON c.id = t.id + 0 ORDER BY t.e <-> '[1,2,3]' LIMIT 3$$);
-- Not for all rows, nor where few rows pass another index.
SELECT test_plan($$SELECT id FROM t ORDER BY e <-> '[1,2,3]'$$);
SELECT test_plan($$SELECT id FROM t WHERE category = 7 ORDER BY e <-> '[1,2,3]' LIMIT 10$$);
SELECT test_plan($$SELECT id FROM t WHERE id = 7 ORDER BY e <-> '[1,2,3]' LIMIT 10$$);
SELECT test_plan($$SELECT id FROM t WHERE id IN (1, 2, 3) ORDER BY e <-> '[1,2,3]' LIMIT 10$$);

SET max_parallel_workers_per_gather = 0;
-- Where the index would give wrong rows or a wrong order, no plan has it, whatever is switched off.
SET enable_seqscan = off;
SET enable_sort = off;
SET enable_indexonlyscan = on;
SELECT test_plan($$SELECT count(*) FROM t$$);
SELECT count(*) FROM t;
SELECT test_plan($$SELECT count(e) FROM t$$);
SELECT test_plan($$SELECT e FROM t$$);
SELECT test_plan($$SELECT e FROM t LIMIT 1$$);
SELECT test_plan($$SELECT count(*) FROM t WHERE e IS NULL$$);
SELECT count(*) FROM t WHERE e IS NULL;
SELECT test_plan($$SELECT count(*) FROM t WHERE e IS NOT NULL$$);
SELECT count(*) FROM t WHERE e IS NOT NULL;
SELECT test_plan($$SELECT id FROM t WHERE e = '[1,2,3]'$$);
SELECT test_plan($$SELECT id FROM t WHERE e <-> '[1,2,3]' < 1$$);
SELECT test_plan($$SELECT id FROM t ORDER BY e <-> '[1,2,3]' DESC LIMIT 10$$);
SELECT test_plan($$SELECT id FROM t ORDER BY e <-> '[1,2,3]' NULLS FIRST LIMIT 10$$);
SELECT test_plan($$SELECT id FROM t ORDER BY e <-> '[1,2,3]', e <-> '[3,2,1]' LIMIT 10$$);
-- From version 17 on the index may serve the first of two orders, under an incremental sort.
SELECT string_agg(line, ' ') ~ 'Index Scan using t_e' = (current_setting('server_version_num')::integer >= 170000) AS by_version
    FROM test_plan($$SELECT id FROM t ORDER BY e <-> '[1,2,3]', id LIMIT 10$$) line;
SELECT array_agg(id) = (test_by_table($$SELECT id, 0 FROM t ORDER BY e <-> '[1,2,3]', id LIMIT 10$$)).ids AS same
    FROM (SELECT id FROM t ORDER BY e <-> '[1,2,3]', id LIMIT 10) s;
SELECT test_plan($$SELECT id FROM t ORDER BY id, e <-> '[1,2,3]' LIMIT 10$$);
SELECT test_plan($$SELECT id FROM t ORDER BY e <=> '[1,2,3]' LIMIT 10$$);
SELECT test_plan($$SELECT id FROM t ORDER BY e <#> '[1,2,3]' LIMIT 10$$);
SELECT test_plan($$SELECT id FROM t ORDER BY e <+> '[1,2,3]' LIMIT 10$$);
SELECT test_plan($$SELECT id FROM t ORDER BY -(e <-> '[1,2,3]') LIMIT 10$$);
SELECT test_plan($$SELECT id FROM t ORDER BY (e <-> '[1,2,3]') + 1 LIMIT 10$$);
SELECT test_plan($$SELECT id FROM t ORDER BY l2_distance(e, '[1,2,3]') LIMIT 10$$);
SELECT test_plan($$SELECT id FROM t ORDER BY e LIMIT 10$$);
SELECT test_plan($$SELECT id FROM t ORDER BY e <-> e LIMIT 10$$);
SELECT test_plan($$SELECT id FROM t ORDER BY e <-> test_vector(category, 3) LIMIT 10$$);
SELECT test_plan($$SELECT id FROM t ORDER BY e <-> NULL LIMIT 10$$);
SELECT test_plan($$SELECT id FROM t ORDER BY (e + e) <-> '[1,2,3]' LIMIT 10$$);
SELECT test_plan($$SELECT min(e <-> '[1,2,3]') FROM t$$);
SELECT test_plan($$SELECT max(e <-> '[1,2,3]') FROM t$$);
SELECT test_plan($$SELECT count(*) FROM t a JOIN t b ON a.e = b.e$$);
SELECT test_plan($$SELECT DISTINCT e FROM t$$);
SELECT test_plan($$SELECT e, count(*) FROM t GROUP BY e$$);
RESET enable_sort;

-- A partial index serves queries that imply its predicate.
DROP INDEX t_e;
CREATE INDEX t_partial ON t USING hybrid (e) WHERE category < 100;
SELECT test_plan($$SELECT id FROM t WHERE category < 100 ORDER BY e <-> '[1,2,3]' LIMIT 10$$);
SELECT test_plan($$SELECT id FROM t WHERE category < 50 ORDER BY e <-> '[1,2,3]' LIMIT 10$$);
SELECT test_plan($$SELECT id FROM t WHERE category < 101 ORDER BY e <-> '[1,2,3]' LIMIT 10$$);
SELECT test_plan($$SELECT id FROM t ORDER BY e <-> '[1,2,3]' LIMIT 10$$);
SELECT test_plan($$SELECT count(*) FROM t WHERE category < 100$$);
SELECT count(*) FROM t WHERE category < 100;
SELECT bool_and(category < 50), count(*) FROM (SELECT category FROM t WHERE category < 50 ORDER BY e <-> '[0,0,0]' LIMIT 30) s;
DROP INDEX t_partial;
CREATE INDEX t_not_null ON t USING hybrid (e) WHERE e IS NOT NULL;
SELECT test_plan($$SELECT count(*) FROM t WHERE e IS NOT NULL$$);
SELECT test_plan($$SELECT id FROM t WHERE e IS NOT NULL ORDER BY e <-> '[1,2,3]' LIMIT 10$$);
RESET enable_seqscan;
DROP INDEX t_not_null;

-- An empty table, never analyzed.
CREATE TABLE fresh (id integer, e vector(3));
CREATE INDEX fresh_e ON fresh USING hybrid (e);
SET enable_seqscan = off;
SELECT test_plan($$SELECT id FROM fresh ORDER BY e <-> '[1,2,3]' LIMIT 10$$);
SELECT id FROM fresh ORDER BY e <-> '[1,2,3]' LIMIT 10;
RESET enable_seqscan;

-- Each scan counts once.
INSERT INTO fresh SELECT i, test_vector(i, 3) FROM generate_series(1, 3000) i;
ANALYZE fresh;
SET stats_fetch_consistency = none;
SELECT pg_stat_force_next_flush();
SELECT idx_scan AS before FROM pg_stat_user_indexes WHERE indexrelid = 'fresh_e'::regclass \gset
SELECT count(*) FROM (SELECT id FROM fresh ORDER BY e <-> '[0,0,0]' LIMIT 10) s;
SELECT count(*) FROM generate_series(1, 7) i, LATERAL (SELECT id FROM fresh ORDER BY e <-> test_vector(i, 3) LIMIT 10) s;
SELECT count(*) FROM (SELECT id FROM fresh ORDER BY e <-> '[0,0,0]' LIMIT 1000) s;
SELECT pg_stat_force_next_flush();
SELECT idx_scan - :before AS scans, idx_tup_read >= 1080 AS read, idx_tup_fetch >= 1080 AS fetched
    FROM pg_stat_user_indexes WHERE indexrelid = 'fresh_e'::regclass;

-- What the access method is, and does.
SELECT amname, amtype, obj_description(oid, 'pg_am') FROM pg_am WHERE amname = 'hybrid';
SELECT p, pg_indexam_has_property(a.oid, p) FROM pg_am a,
    unnest(ARRAY['can_order', 'can_unique', 'can_multi_col', 'can_exclude', 'can_include']) p WHERE amname = 'hybrid';
SELECT p, pg_index_has_property('fresh_e', p) FROM unnest(ARRAY['clusterable', 'index_scan', 'bitmap_scan', 'backward_scan']) p;
SELECT p, pg_index_column_has_property('fresh_e', 1, p)
    FROM unnest(ARRAY['asc', 'desc', 'orderable', 'distance_orderable', 'returnable', 'search_array', 'search_nulls']) p;
SELECT phase, pg_indexam_progress_phasename(a.oid, phase) FROM pg_am a, generate_series(0, 6) phase WHERE amname = 'hybrid';
SELECT opcname, opcdefault, opcintype::regtype, amvalidate(c.oid) FROM pg_opclass c JOIN pg_am a ON a.oid = opcmethod
    WHERE amname = 'hybrid' AND opcname ~ 'vector' ORDER BY 1;
SELECT opfname, amopstrategy, amoppurpose, amopopr::regoperator FROM pg_opfamily f JOIN pg_am a ON a.oid = opfmethod
    JOIN pg_amop o ON amopfamily = f.oid WHERE amname = 'hybrid' AND opfname ~ 'vector' ORDER BY 1, 2;
-- Operator classes that are broken.
CREATE OPERATOR CLASS broken_empty FOR TYPE vector USING hybrid AS STORAGE vector;
CREATE OPERATOR CLASS broken_search FOR TYPE vector USING hybrid AS OPERATOR 1 = , FUNCTION 1 hybrid_metric_l2();
CREATE OPERATOR CLASS broken_number FOR TYPE vector USING hybrid AS OPERATOR 1 <-> FOR ORDER BY float_ops, FUNCTION 1 vector_dims(vector);
CREATE OPERATOR CLASS broken_strategy FOR TYPE vector USING hybrid AS OPERATOR 2 <-> FOR ORDER BY float_ops, FUNCTION 1 hybrid_metric_l2();
CREATE OPERATOR CLASS broken_support FOR TYPE vector USING hybrid AS OPERATOR 1 <-> FOR ORDER BY float_ops, FUNCTION 2 hybrid_metric_l2();
CREATE OPERATOR CLASS broken_type FOR TYPE varchar USING hybrid AS FUNCTION 1 hybrid_metric_l2();
CREATE FUNCTION metric_9() RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT 9';
CREATE FUNCTION metric_text() RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'l2' $$;
CREATE OPERATOR CLASS broken_metric FOR TYPE vector USING hybrid AS OPERATOR 1 <-> FOR ORDER BY float_ops, FUNCTION 1 metric_9();
CREATE OPERATOR CLASS broken_metric_type FOR TYPE vector USING hybrid AS OPERATOR 1 <-> FOR ORDER BY float_ops, FUNCTION 1 metric_text();
DO $$
DECLARE
    c record;
BEGIN
    FOR c IN SELECT oid, opcname FROM pg_opclass WHERE opcname LIKE 'broken%' ORDER BY opcname LOOP
        RAISE INFO '% valid: %', c.opcname, amvalidate(c.oid);
    END LOOP;
END $$;
CREATE INDEX ON fresh USING hybrid (e broken_metric);
CREATE INDEX ON fresh USING hybrid (e broken_empty);
CREATE INDEX ON fresh USING hybrid (e broken_metric_type);
CREATE INDEX ON fresh USING hybrid (e broken_number);
CREATE TABLE words (w varchar(10));
INSERT INTO words VALUES ('word');
CREATE INDEX ON words USING hybrid (w broken_type);

SET client_min_messages = warning;
DROP SCHEMA hybrid_plan CASCADE;
