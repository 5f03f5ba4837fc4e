-- VACUUM and ANALYZE: dead rows leave the index, live ones stay, TIDs may be used again, statistics are sane.
CREATE SCHEMA hybrid_vacuum;
SET search_path = hybrid_vacuum, public;
SET max_parallel_maintenance_workers = 0;
CREATE TABLE t (id integer, e vector(8)) WITH (autovacuum_enabled = off);
INSERT INTO t SELECT i, test_vector(i, 8) FROM generate_series(1, 3000) i;
-- VACUUM alone: what compaction does about dead rows is in hybrid_compact.
CREATE INDEX t_e ON t USING hybrid (e) WITH (segment_rows = 1000, pending_rows = 0, auto_compact = off);
CREATE FUNCTION state(OUT segments integer, OUT rows bigint, OUT dead bigint, OUT unreachable_some boolean, OUT problems bigint, OUT reltuples real) LANGUAGE sql AS $$
    SELECT s.segments, s.rows, s.dead_rows, s.unreachable > s.elements / 1000 + 1, (SELECT count(*) FROM hybrid_check('t_e', true)),
        (SELECT reltuples FROM pg_class WHERE oid = 't_e'::regclass) FROM hybrid_stats('t_e') s
$$;
SELECT * FROM state();

-- ANALYZE leaves the index alone.
SELECT pg_relation_size('t_e') AS size, pg_current_wal_insert_lsn() AS lsn \gset
ANALYZE t;
SELECT * FROM state();
SELECT pg_relation_size('t_e') = :size AS same_size;

-- Half of the rows.
DELETE FROM t WHERE id % 2 = 0;
SELECT ordered, once, recall >= 0.95 AS recall_95 FROM test_compare('t', '<->', 8, 10);
VACUUM (INDEX_CLEANUP off) t;
SELECT rows FROM state();
SELECT ordered, once, recall >= 0.95 AS recall_95 FROM test_compare('t', '<->', 8, 10);
VACUUM t;
SELECT * FROM state();
SELECT ordered, once, recall >= 0.95 AS recall_95 FROM test_compare('t', '<->', 8, 10);
SELECT pg_relation_size('t_e') = :size AS same_size;
-- With nothing to remove.
VACUUM t;
SELECT * FROM state();
VACUUM (FREEZE, ANALYZE) t;
SELECT * FROM state();
-- Their heap TIDs go to rows with other vectors.
INSERT INTO t SELECT i, test_vector(i, 8) FROM generate_series(10001, 11500) i;
SELECT * FROM state();
SELECT ordered, once, recall >= 0.95 AS recall_95 FROM test_compare('t', '<->', 8, 10);
-- A segment of which nothing is left.
DELETE FROM t WHERE ctid IN (SELECT ctid FROM t ORDER BY ctid LIMIT 1000);
VACUUM t;
SELECT * FROM state();
SELECT ordered, once, recall >= 0.95 AS recall_95 FROM test_compare('t', '<->', 8, 10);
-- Everything.
DELETE FROM t;
SET enable_seqscan = off;
SELECT count(*) FROM (SELECT FROM t ORDER BY e <-> test_vector(1, 8) LIMIT 10) s;
VACUUM t;
SELECT rows, problems, reltuples FROM state();
SELECT count(*) FROM (SELECT FROM t ORDER BY e <-> test_vector(1, 8) LIMIT 10) s;
VACUUM t;
SELECT rows, problems, reltuples FROM state();
RESET enable_seqscan;
-- And on.
INSERT INTO t SELECT i, test_vector(i, 8) FROM generate_series(1, 500) i;
SELECT rows, problems FROM state();
SELECT ordered, once, same FROM test_compare('t', '<->', 8, 500, 5);
VACUUM t;
SELECT rows, problems FROM state();

-- Again and again, as autovacuum does: updates, rolled back inserts, deletes.
CREATE PROCEDURE churn(round integer) LANGUAGE plpgsql AS $$
BEGIN
    UPDATE t SET e = test_vector(id + round * 1000, 8) WHERE id % 5 = round % 5;
    BEGIN
        INSERT INTO t SELECT i, test_vector(i, 8) FROM generate_series(1, 50) i;
        RAISE division_by_zero;
    EXCEPTION WHEN division_by_zero THEN NULL;
    END;
    DELETE FROM t WHERE id % 50 = round;
    INSERT INTO t SELECT i, test_vector(i + round, 8) FROM generate_series(round, 500, 50) i;
END $$;
CALL churn(1); VACUUM t;
CALL churn(2); VACUUM t;
CALL churn(3); VACUUM t;
CALL churn(4); VACUUM t;
CALL churn(5); VACUUM t;
SELECT rows, problems, reltuples FROM state();
SELECT ordered, once, same FROM test_compare('t', '<->', 8, 500, 5);
REINDEX INDEX t_e;
SELECT * FROM state();

-- Several indexes, in parallel; partial ones.
CREATE INDEX t_ip ON t USING hybrid (e vector_ip_ops);
CREATE INDEX t_cosine ON t USING hybrid (e vector_cosine_ops);
CREATE INDEX t_partial ON t USING hybrid (e vector_l1_ops) WHERE id <= 100;
DELETE FROM t WHERE id % 3 = 0;
SET min_parallel_index_scan_size = 0;
SET max_parallel_maintenance_workers = 2;
VACUUM (PARALLEL 2) t;
RESET min_parallel_index_scan_size;
SET max_parallel_maintenance_workers = 0;
SELECT relname, reltuples, (SELECT count(*) FROM hybrid_check(c.oid, true)) AS problems FROM pg_class c
    WHERE oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 't'::regclass) ORDER BY 1;
SELECT op, c.ordered, c.once, c.same FROM unnest(ARRAY['<->', '<#>', '<=>']) op, test_compare('t', op, 8, 500, 3) c;
SELECT ordered, once, same FROM test_compare('t WHERE id <= 100', '<+>', 8, 500, 3);
VACUUM t;
SELECT relname, reltuples FROM pg_class c WHERE oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 't'::regclass) ORDER BY 1;

-- Rows that share an element, in chains of many.
CREATE TABLE d (id integer, e vector(2)) WITH (autovacuum_enabled = off);
CREATE INDEX d_e ON d USING hybrid (e) WITH (pending_rows = 0, auto_compact = off);
INSERT INTO d SELECT i, '[1,1]' FROM generate_series(1, 500) i;
SELECT rows, elements FROM hybrid_stats('d_e');
DELETE FROM d WHERE id BETWEEN 1 AND 3;
VACUUM d;
SELECT rows, elements, (SELECT count(*) FROM hybrid_check('d_e', true)) AS problems FROM hybrid_stats('d_e');
INSERT INTO d SELECT i, '[1,1]' FROM generate_series(501, 510) i;
SELECT rows, elements, (SELECT count(*) FROM hybrid_check('d_e', true)) AS problems FROM hybrid_stats('d_e');
DELETE FROM d WHERE id % 10 <> 0;
VACUUM d;
SELECT rows, elements, (SELECT count(*) FROM hybrid_check('d_e', true)) AS problems FROM hybrid_stats('d_e');
SELECT ordered, once, same FROM test_compare('d', '<->', 2, 500, 2);
DELETE FROM d;
VACUUM d;
SELECT rows, elements, dead_rows FROM hybrid_stats('d_e');
INSERT INTO d SELECT i, '[1,1]' FROM generate_series(1, 100) i;
SELECT rows, elements, (SELECT count(*) FROM hybrid_check('d_e', true)) AS problems FROM hybrid_stats('d_e');
SELECT ordered, once, same FROM test_compare('d', '<->', 2, 500, 2);

SET client_min_messages = warning;
DROP SCHEMA hybrid_vacuum CASCADE;
