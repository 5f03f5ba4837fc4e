-- A timeout ends what takes long: a build, inserts, scans. Nothing of it remains, and the session goes on.
CREATE SCHEMA hybrid_cancel;
SET search_path = hybrid_cancel, public;
CREATE TABLE t (id integer, e vector(64));
INSERT INTO t SELECT i, test_vector(i, 64) FROM generate_series(1, 8000) i;
CREATE TABLE target (id integer, e vector(64));
CREATE INDEX target_e ON target USING hybrid (e) WITH (m = 100, ef_construction = 1000, pending_rows = 0);
INSERT INTO target SELECT * FROM t LIMIT 300;
-- Builds: while rows are read, while they are linked, concurrently, in a transaction.
\set VERBOSITY sqlstate
SET statement_timeout = '5ms';
CREATE INDEX t_e ON t USING hybrid (e) WITH (m = 100, ef_construction = 1000);
SET statement_timeout = '300ms';
CREATE INDEX t_e ON t USING hybrid (e) WITH (m = 100, ef_construction = 1000);
CREATE INDEX t_e ON t USING hybrid (e vector_cosine_ops) WITH (m = 100, ef_construction = 1000);
SET max_parallel_maintenance_workers = 0;
CREATE INDEX t_e ON t USING hybrid (e vector_l1_ops) WITH (m = 100, ef_construction = 1000);
RESET max_parallel_maintenance_workers;
SET maintenance_work_mem = '1MB';
SET client_min_messages = warning;
CREATE INDEX t_e ON t USING hybrid (e) WITH (m = 100, ef_construction = 1000);
RESET maintenance_work_mem;
RESET client_min_messages;
SET statement_timeout = 0;
SELECT to_regclass('t_e');
BEGIN;
SAVEPOINT s;
SET LOCAL statement_timeout = '100ms';
CREATE INDEX t_e ON t USING hybrid (e) WITH (m = 100, ef_construction = 1000);
ROLLBACK TO s;
SELECT count(*) FROM t;
COMMIT;
SET statement_timeout = '1s';
CREATE INDEX CONCURRENTLY t_e ON t USING hybrid (e) WITH (m = 100, ef_construction = 1000);
SET statement_timeout = 0;
SELECT indisvalid FROM pg_index WHERE indexrelid = 't_e'::regclass;
DROP INDEX t_e;
-- The same session builds it after all.
CREATE INDEX t_e ON t USING hybrid (e);
SELECT rows, (SELECT count(*) FROM hybrid_check('t_e', true)) AS problems FROM hybrid_stats('t_e');
-- Inserts, updates.
SET statement_timeout = '50ms';
INSERT INTO target SELECT id, e FROM t;
UPDATE target SET e = e + e;
SET statement_timeout = 0;
SELECT count(*) FROM target;
SELECT count(*) FROM hybrid_check('target_e', true);
SELECT ordered, once, same FROM test_compare('target', '<->', 64, 300, 3);
INSERT INTO target VALUES (0, test_vector(-1, 64));
SELECT id FROM target ORDER BY e <-> test_vector(-1, 64) LIMIT 1;
-- Scans.
SET enable_seqscan = off;
SET statement_timeout = '50ms';
SELECT count(*) FROM t a, LATERAL (SELECT id FROM t b ORDER BY a.e <-> b.e LIMIT 8000) s;
SET hybrid.ef_search = 10000;
SELECT count(*) FROM t a, LATERAL (SELECT id FROM t b ORDER BY a.e <-> b.e LIMIT 10) s;
RESET hybrid.ef_search;
SET statement_timeout = 0;
SELECT id FROM t ORDER BY e <-> test_vector(77, 64) LIMIT 1;
-- Looking after.
SET statement_timeout = '20ms';
SELECT 1 FROM hybrid_recall('t_e', 2000, 10);
SET statement_timeout = 0;
SELECT id FROM t ORDER BY e <-> test_vector(78, 64) LIMIT 1;

SET client_min_messages = warning;
DROP SCHEMA hybrid_cancel CASCADE;
