-- The index under changes of its table: ALTER, TRUNCATE, VACUUM FULL, CLUSTER, COPY, transactions that roll back.
CREATE SCHEMA hybrid_ddl;
SET search_path = hybrid_ddl, public;
SET max_parallel_maintenance_workers = 0;
CREATE TABLE t (id integer PRIMARY KEY, n integer, e vector(3));
INSERT INTO t SELECT i, 0, test_vector(i, 3) FROM generate_series(1, 300) i;
CREATE INDEX t_e ON t USING hybrid (e);
-- Same distances in order as the table, sound, and as many rows as there are vectors.
CREATE FUNCTION sound(OUT ordered boolean, OUT once boolean, OUT same boolean, OUT problems bigint) LANGUAGE sql AS $$
    SELECT c.ordered, c.once, c.same, (SELECT count(*) FROM hybrid_check('t_e', true)) FROM test_compare('t WHERE e IS NOT NULL', '<->', 3, 10000, 5) c
$$;
SELECT * FROM sound();

-- Storage: each gives the index new storage, or keeps it.
SELECT pg_relation_filenode('t_e') AS before \gset
TRUNCATE t;
SELECT pg_relation_filenode('t_e') <> :before AS new, rows, pages FROM hybrid_stats('t_e');
INSERT INTO t SELECT i, 0, test_vector(i, 3) FROM generate_series(1, 300) i;
SELECT * FROM sound();
DELETE FROM t WHERE id % 3 = 0;
VACUUM FULL t;
SELECT * FROM sound();
SELECT rows, dead_rows FROM hybrid_stats('t_e');
CLUSTER t USING t_pkey;
SELECT * FROM sound();
BEGIN;
TRUNCATE t;
INSERT INTO t SELECT i, 0, test_vector(i, 3) FROM generate_series(1, 50) i;
SELECT ordered, once, same FROM sound();
ROLLBACK;
SELECT * FROM sound();
SELECT count(*) FROM t;
ALTER TABLE t ALTER COLUMN n TYPE bigint;
SELECT * FROM sound();
ALTER TABLE t ADD COLUMN extra integer DEFAULT 1;
ALTER TABLE t DROP COLUMN extra;
SELECT * FROM sound();

-- The column's type.
SELECT pg_relation_filenode('t_e') AS before \gset
ALTER TABLE t ALTER COLUMN e TYPE vector(2) USING subvector(e, 1, 2)::vector(2);
SELECT pg_relation_filenode('t_e') <> :before AS new, dimensions FROM hybrid_stats('t_e');
SELECT ordered, once, same FROM test_compare('t', '<->', 2, 10000, 5);
ALTER TABLE t ALTER COLUMN e TYPE vector(3);
ALTER TABLE t ALTER COLUMN e TYPE vector(3) USING (e || '[0]')::vector(3);
SELECT * FROM sound();
ALTER TABLE t ALTER COLUMN e TYPE real[] USING e::real[];
SELECT * FROM sound();
-- Without dimensions: an index keeps those it was built with, or cannot be rebuilt.
ALTER TABLE t ALTER COLUMN e TYPE vector;
SELECT * FROM sound();
INSERT INTO t VALUES (9999, 0, '[1,2]');
REINDEX INDEX t_e;
ALTER TABLE t ALTER COLUMN e TYPE vector(3);
SELECT * FROM sound();
ALTER TABLE t RENAME COLUMN e TO f;
ALTER TABLE t RENAME COLUMN f TO e;
ALTER INDEX t_e RENAME TO t_f;
ALTER INDEX t_f RENAME TO t_e;
SELECT * FROM sound();
ALTER TABLE t ALTER COLUMN e SET STORAGE main;
UPDATE t SET e = e;
SELECT * FROM sound();
ALTER TABLE t DROP COLUMN e;
SELECT to_regclass('t_e');
ALTER TABLE t ADD COLUMN e vector(3);
CREATE INDEX t_e ON t USING hybrid (e);
UPDATE t SET e = test_vector(id, 3);
SELECT * FROM sound();
DROP INDEX t_e;
CREATE INDEX t_e ON t USING hybrid (e);
-- A tablespace of its own.
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE hybrid_ddl_space LOCATION '';
ALTER INDEX t_e SET TABLESPACE hybrid_ddl_space;
SELECT * FROM sound();
INSERT INTO t VALUES (1000, 0, '[7,8,9]');
ALTER INDEX t_e SET TABLESPACE pg_default;
SELECT * FROM sound();
DROP TABLESPACE hybrid_ddl_space;

-- Writing: COPY, UPDATE that touches the vector or not, DELETE, MERGE, ON CONFLICT.
INSERT INTO t SELECT id + 2000, n, e FROM t WHERE id <= 100;
COPY t (id, n, e) FROM stdin;
3001	0	[1,2,3]
3002	0	\N
3003	0	[3,2,1]
\.
SELECT * FROM sound();
COPY t (id, n, e) FROM stdin;
3004	0	[1,2,3]
3005	0	[1,2]
\.
SELECT * FROM sound();
VACUUM t;
UPDATE t SET n = n + 1 WHERE id <= 100;
SELECT * FROM sound();
CREATE INDEX t_n ON t (n);
UPDATE t SET n = n + 1 WHERE id <= 100;
SELECT * FROM sound();
UPDATE t SET e = e + '[1,1,1]' WHERE id % 2 = 0;
SELECT * FROM sound();
UPDATE t SET e = e - '[1,1,1]' WHERE id % 2 = 0;
SELECT * FROM sound();
INSERT INTO t VALUES (1, 0, '[5,5,5]') ON CONFLICT (id) DO UPDATE SET e = EXCLUDED.e;
INSERT INTO t VALUES (1, 0, '[6,6,6]') ON CONFLICT DO NOTHING;
INSERT INTO t VALUES (1, 0, '[6,6,6]');
MERGE INTO t USING (VALUES (2, '[8,8,8]'::vector), (5000, '[9,9,9]')) v(id, e) ON t.id = v.id
    WHEN MATCHED THEN UPDATE SET e = v.e WHEN NOT MATCHED THEN INSERT VALUES (v.id, 0, v.e);
SELECT * FROM sound();
DELETE FROM t WHERE id > 3000;
SELECT * FROM sound();

-- Rolled back: to a savepoint, by a subtransaction's error, whole; prepared.
BEGIN;
INSERT INTO t VALUES (6001, 0, '[0,0,0]');
SAVEPOINT s;
INSERT INTO t SELECT 6100 + i, 0, '[0,0,0]' FROM generate_series(1, 100) i;
SELECT count(*) FROM t WHERE e = '[0,0,0]';
ROLLBACK TO s;
SELECT * FROM sound();
INSERT INTO t VALUES (6002, 0, '[0,0,0]');
RELEASE s;
COMMIT;
SET enable_seqscan = off;
SELECT id FROM t ORDER BY e <-> '[0,0,0]', id LIMIT 2;
SELECT array_agg(id ORDER BY id) FROM (SELECT id FROM t ORDER BY e <-> '[0,0,0]' LIMIT 2) s;
RESET enable_seqscan;
DO $$ BEGIN
    INSERT INTO t SELECT 7000 + i, 0, test_vector(i, 3) FROM generate_series(1, 10) i;
    INSERT INTO t VALUES (7001, 0, NULL);
EXCEPTION WHEN unique_violation THEN
    INSERT INTO t VALUES (7001, 0, '[2,2,2]');
END $$;
SELECT * FROM sound();
BEGIN;
INSERT INTO t SELECT 8000 + i, 0, test_vector(i, 3) FROM generate_series(1, 200) i;
UPDATE t SET e = '[1,1,1]';
DELETE FROM t WHERE id % 2 = 0;
ROLLBACK;
SELECT * FROM sound();
BEGIN;
INSERT INTO t VALUES (9001, 0, '[-9,-9,-9]');
PREPARE TRANSACTION 'hybrid_ddl';
SELECT count(*) FROM (SELECT FROM t ORDER BY e <-> '[-9,-9,-9]' LIMIT 1) s;
COMMIT PREPARED 'hybrid_ddl';
SELECT * FROM sound();
VACUUM t;
SELECT * FROM sound();

-- CREATE INDEX in transactions: after changes, with changes after it, rolled back.
DROP INDEX t_e;
BEGIN;
DELETE FROM t WHERE id % 5 = 0;
INSERT INTO t SELECT 10000 + i, 0, test_vector(i, 3) FROM generate_series(1, 100) i;
UPDATE t SET n = -id, e = e * '[2,2,2]' WHERE id % 7 = 0;
CREATE INDEX t_e ON t USING hybrid (e);
SELECT * FROM sound();
INSERT INTO t SELECT 11000 + i, 0, test_vector(i, 3) FROM generate_series(1, 100) i;
DELETE FROM t WHERE id % 11 = 0;
SELECT * FROM sound();
COMMIT;
SELECT * FROM sound();
-- Rows whose old versions have another vector (broken HOT chains): PostgreSQL waits with its use, all rows are in.
DROP INDEX t_e;
BEGIN;
UPDATE t SET e = e + '[1,0,0]';
CREATE INDEX t_e ON t USING hybrid (e);
SELECT * FROM hybrid_check('t_e', true);
ROLLBACK;
CREATE INDEX t_e ON t USING hybrid (e);
BEGIN;
DROP INDEX t_e;
CREATE INDEX t_e ON t USING hybrid (e vector_cosine_ops);
ROLLBACK;
SELECT * FROM sound();
BEGIN;
REINDEX INDEX t_e;
INSERT INTO t VALUES (20000, 0, '[1,1,1]');
ROLLBACK;
SELECT * FROM sound();
BEGIN;
SAVEPOINT s;
CREATE INDEX gone ON t USING hybrid (e vector_cosine_ops);
SELECT pg_relation_filepath('gone') AS path \gset
ROLLBACK TO s;
SELECT to_regclass('gone');
COMMIT;
SELECT size FROM pg_stat_file(:'path', true) WHERE size > 0;
CREATE TABLE created (e vector(3));
BEGIN;
TRUNCATE created;
INSERT INTO created SELECT test_vector(i, 3) FROM generate_series(1, 100) i;
CREATE INDEX created_e ON created USING hybrid (e);
INSERT INTO created SELECT test_vector(i, 3) FROM generate_series(101, 200) i;
COMMIT;
SELECT rows, (SELECT count(*) FROM hybrid_check('created_e', true)) AS problems FROM hybrid_stats('created_e');
-- A concurrent build that fails leaves an invalid index that costs nothing but its drop.
INSERT INTO created SELECT NULL;
ALTER TABLE created ADD COLUMN f vector;
UPDATE created SET f = '[1,2]';
CREATE INDEX CONCURRENTLY broken ON created USING hybrid ((f::vector(3)) vector_l2_ops);
SELECT indisvalid FROM pg_index WHERE indexrelid = 'broken'::regclass;
SET enable_seqscan = off;
SELECT test_plan($$SELECT FROM created ORDER BY f::vector(3) <-> '[1,2,3]' LIMIT 1$$);
RESET enable_seqscan;
UPDATE created SET f = '[1,2,3]';
REINDEX INDEX CONCURRENTLY broken;
SELECT indisvalid FROM pg_index WHERE indexrelid = 'broken'::regclass;
SELECT rows, (SELECT count(*) FROM hybrid_check('broken', true)) AS problems FROM hybrid_stats('broken');
DROP INDEX broken;
-- LIKE, dump's definition.
CREATE TABLE likewise (LIKE t INCLUDING ALL);
SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'likewise'::regclass ORDER BY 1;
-- Rights: whoever may read the table may search by the index.
CREATE ROLE hybrid_ddl_reader;
GRANT USAGE ON SCHEMA hybrid_ddl TO hybrid_ddl_reader;
GRANT SELECT, INSERT ON t TO hybrid_ddl_reader;
SET ROLE hybrid_ddl_reader;
SELECT * FROM sound();
INSERT INTO t VALUES (30000, 0, '[1,2,3]');
CREATE INDEX ON t USING hybrid (e);
RESET ROLE;
REVOKE ALL ON t FROM hybrid_ddl_reader;
REVOKE ALL ON SCHEMA hybrid_ddl FROM hybrid_ddl_reader;
DROP ROLE hybrid_ddl_reader;

SET client_min_messages = warning;
DROP SCHEMA hybrid_ddl CASCADE;
