-- Index options and settings: limits, contradictions, what takes effect when.
CREATE SCHEMA hybrid_options;
SET search_path = hybrid_options, public;
CREATE TABLE t (id integer, e vector(3));
INSERT INTO t SELECT i, test_vector(i, 3) FROM generate_series(1, 50) i;
CREATE FUNCTION try(options text) RETURNS text LANGUAGE sql AS
    $$ SELECT test_error(format('CREATE INDEX ON t USING hybrid (e) WITH (%s)', options)) $$;

-- At the limits, and beyond.
SELECT options, try(options) FROM unnest(ARRAY[
    'm = 2', 'm = 100, ef_construction = 200', 'm = 1', 'm = 101', 'm = 2.5', 'm = ''many''', 'm = -1',
    'ef_construction = 4, m = 2', 'ef_construction = 1000', 'ef_construction = 3', 'ef_construction = 1001',
    'm = 33', 'm = 32', 'ef_construction = 31', 'ef_construction = 32',
    'lists = 0', 'lists = 1000000', 'lists = -1', 'lists = 1000001',
    'recent_rows = 0', 'recent_rows = 2147483647', 'recent_rows = -1', 'recent_rows = 2147483648',
    'segment_rows = 1000', 'segment_rows = 100000000', 'segment_rows = 999', 'segment_rows = 100000001',
    'pending_rows = 0', 'pending_rows = 1000000', 'pending_rows = -1', 'pending_rows = 1000001',
    'ef_search = 0', 'ef_search = 10000', 'ef_search = -1', 'ef_search = 10001',
    'probes = 0', 'probes = 1000000', 'probes = -1', 'probes = 1000001',
    'rerank = sq8', 'rerank = f16', 'rerank = f32', 'rerank = ''F32''', 'rerank = f64', 'rerank = ''''',
    'auto_compact', 'auto_compact = off', 'auto_compact = maybe']) options;
SELECT options, try(options) FROM unnest(ARRAY[
    'recent_threshold = ''7 days''', 'recent_threshold = ''36:00''', 'recent_threshold = ''P1M''', 'recent_threshold = 0',
    'recent_threshold = ''infinity''', 'recent_threshold = '' Infinity ''',
    'recent_threshold = ''-1 day''', 'recent_threshold = ''soon''', 'recent_threshold = ''''',
    'recent_threshold = ''1000000000 years''', 'recent_threshold',
    'partition_interval = ''1 hour''', 'partition_interval = ''59 minutes''', 'partition_interval = ''178000000 years''',
    'partition_interval = ''infinity''', 'partition_interval = ''-1 day''', 'partition_interval = ''monthly''']) options;
-- An interval from version 17 on, but not an age.
SELECT try('recent_threshold = ''-infinity''') ~ '^22(007 invalid input syntax|023 invalid value.*An age must not be negative)' AS refused;
-- Contradictions, unknown names.
SELECT options, try(options) FROM unnest(ARRAY[
    'recent_rows = 0, recent_threshold = ''infinity''', 'recent_rows = 1, recent_threshold = ''infinity''',
    'm = 16, m = 17', 'fillfactor = 90', 'M = 16', '"M" = 16', 'hnsw.m = 16', 'nonsense']) options;
-- As psql shows the faults.
CREATE INDEX ON t USING hybrid (e) WITH (m = 1);
CREATE INDEX ON t USING hybrid (e) WITH (m = 40);
CREATE INDEX ON t USING hybrid (e) WITH (rerank = f64);
CREATE INDEX ON t USING hybrid (e) WITH (recent_threshold = '-1 day');
CREATE INDEX ON t USING hybrid (e) WITH (partition_interval = '1 minute');
CREATE INDEX ON t USING hybrid (e) WITH (recent_rows = 0, recent_threshold = 'infinity');
-- Nothing is left of those that failed.
SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass AND NOT indisvalid;
DO $$ DECLARE i regclass; BEGIN
    FOR i IN SELECT indexrelid FROM pg_index WHERE indrelid = 't'::regclass LOOP EXECUTE 'DROP INDEX ' || i; END LOOP;
END $$;

-- Options in force and as built; ALTER INDEX.
CREATE INDEX i ON t USING hybrid (e) WITH (m = 8, ef_construction = 32, recent_threshold = 'infinity', rerank = 'f16');
SELECT jsonb_pretty(options) FROM hybrid_stats('i');
ALTER INDEX i SET (m = 10, ef_search = 100, recent_threshold = '2 days');
SELECT options->'m' AS m, built_with->'m' AS built_m, options->'ef_search' AS ef_search,
    options->'recent_threshold' AS threshold, built_with->'recent_threshold' AS built_threshold FROM hybrid_stats('i');
INSERT INTO t SELECT i, test_vector(i, 3) FROM generate_series(51, 100) i;
SELECT ordered, once, same FROM test_compare('t', '<->', 3, 100);
SELECT * FROM hybrid_check('i', true);
REINDEX INDEX i;
SELECT options->'m' AS m, built_with->'m' AS built_m, built_with->'recent_threshold' AS built_threshold FROM hybrid_stats('i');
ALTER INDEX i RESET (m, ef_construction, recent_threshold, rerank, ef_search);
SELECT reloptions FROM pg_class WHERE oid = 'i'::regclass;
SELECT options->'m' AS m, built_with->'m' AS built_m, options->'ef_search' AS ef_search FROM hybrid_stats('i');
ALTER INDEX i SET (m = 40);
ALTER INDEX i SET (recent_rows = 0, recent_threshold = 'infinity');
ALTER INDEX i SET (recent_rows = 0);
ALTER INDEX i SET (recent_threshold = 'infinity');
ALTER INDEX i SET (fillfactor = 50);
ALTER INDEX i RESET (nonsense);
SELECT reloptions FROM pg_class WHERE oid = 'i'::regclass;
SELECT pg_get_indexdef('i'::regclass);
ALTER INDEX i SET (recent_threshold = '1 day 02:03:04', rerank = 'f32');
SELECT pg_get_indexdef('i'::regclass);

-- Settings.
SHOW hybrid.ef_search;
SHOW hybrid.max_scan_tuples;
SET hybrid.ef_search = 10000;
SET hybrid.ef_search = 10001;
SET hybrid.ef_search = -1;
SET hybrid.ef_search = 'wide';
SET hybrid.max_scan_tuples = 2147483647;
SET hybrid.max_scan_tuples = -1;
SET hybrid.nonsense = 1;
SHOW hybrid.nonsense;
SELECT name, setting, context, vartype, min_val, max_val FROM pg_settings WHERE name LIKE 'hybrid.%' ORDER BY 1;
-- Session before index before 40.
RESET hybrid.ef_search;
SELECT options->'ef_search' AS ef_search FROM hybrid_stats('i');
ALTER INDEX i SET (ef_search = 77);
SELECT options->'ef_search' AS ef_search FROM hybrid_stats('i');
SET hybrid.ef_search = 99;
SELECT options->'ef_search' AS ef_search FROM hybrid_stats('i');
-- A scan gives up where it is told to.
SET enable_seqscan = off;
SET hybrid.max_scan_tuples = 7;
SELECT count(*) FROM (SELECT id FROM t ORDER BY e <-> '[0,0,0]' LIMIT 50) s;
RESET hybrid.max_scan_tuples;
SELECT count(*) FROM (SELECT id FROM t ORDER BY e <-> '[0,0,0]' LIMIT 50) s;

SET client_min_messages = warning;
DROP SCHEMA hybrid_options CASCADE;
