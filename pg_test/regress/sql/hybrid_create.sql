-- CREATE INDEX and REINDEX in all their forms.
CREATE SCHEMA hybrid_create;
SET search_path = hybrid_create, public;

-- Each operator class on an empty, a small and a larger table.
CREATE TABLE empty_table (id integer, e vector(3));
CREATE TABLE small_table (id integer, e vector(3));
INSERT INTO small_table SELECT i, test_vector(i, 3) FROM generate_series(1, 100) i;
CREATE TABLE large_table (id integer, e vector(8));
INSERT INTO large_table SELECT i, test_vector(i, 8) FROM generate_series(1, 4000) i;
CREATE FUNCTION try_class(class text, op text, OUT empty_rows integer, OUT small_same boolean, OUT large_ordered boolean,
        OUT large_recall_95 boolean, OUT problems bigint, OUT reltuples real[])
    LANGUAGE plpgsql AS $$
DECLARE
    c record;
BEGIN
    EXECUTE format('CREATE INDEX empty_idx ON empty_table USING hybrid (e %s)', class);
    EXECUTE format('CREATE INDEX small_idx ON small_table USING hybrid (e %s)', class);
    EXECUTE format('CREATE INDEX large_idx ON large_table USING hybrid (e %s)', class);
    empty_rows := coalesce(cardinality((test_by_index(format(
        'SELECT id, e %s %L FROM empty_table ORDER BY e %1$s %2$L LIMIT 5', op, '[1,2,3]'))).ids), 0);
    c := test_compare('small_table', op, 3, 100);
    small_same := c.ordered AND c.once AND c.same;
    c := test_compare('large_table', op, 8, 10);
    large_ordered := c.ordered AND c.once;
    large_recall_95 := c.recall >= 0.95;
    problems := (SELECT count(*) FROM hybrid_check('empty_idx', true)) + (SELECT count(*) FROM hybrid_check('small_idx', true))
        + (SELECT count(*) FROM hybrid_check('large_idx', true));
    reltuples := (SELECT array_agg(pg_class.reltuples ORDER BY relname) FROM pg_class
        WHERE relname IN ('empty_idx', 'small_idx', 'large_idx') AND relnamespace = 'hybrid_create'::regnamespace);
    DROP INDEX empty_idx, small_idx, large_idx;
END $$;
SELECT class, t.* FROM (VALUES ('', '<->'), ('vector_l2_ops', '<->'), ('vector_ip_ops', '<#>'), ('vector_cosine_ops', '<=>'),
    ('vector_l1_ops', '<+>')) c(class, op), try_class(class, op) t;

-- An empty index takes rows.
CREATE INDEX ON empty_table USING hybrid (e);
INSERT INTO empty_table SELECT id, e FROM small_table;
SELECT ordered, once, same FROM test_compare('empty_table', '<->', 3, 100);

-- Unlogged: survives in a form that takes rows; its init fork has the three pages of an empty index.
CREATE UNLOGGED TABLE unlogged_table (id integer, e vector(3));
INSERT INTO unlogged_table SELECT id, e FROM small_table;
CREATE INDEX unlogged_idx ON unlogged_table USING hybrid (e);
SELECT ordered, once, same FROM test_compare('unlogged_table', '<->', 3, 100);
SELECT size FROM pg_stat_file(pg_relation_filepath('unlogged_idx') || '_init');
INSERT INTO unlogged_table SELECT id + 100, e FROM small_table;
SELECT count(*) FROM hybrid_check('unlogged_idx', true);
ALTER TABLE unlogged_table SET LOGGED;
SELECT relpersistence FROM pg_class WHERE oid = 'unlogged_idx'::regclass;
SELECT ordered, once, same FROM test_compare('unlogged_table', '<->', 3, 200);
ALTER TABLE unlogged_table SET UNLOGGED;
SELECT ordered, once, same FROM test_compare('unlogged_table', '<->', 3, 200);
SELECT size FROM pg_stat_file(pg_relation_filepath('unlogged_idx') || '_init');

-- Temporary.
CREATE TEMPORARY TABLE temporary_table (id integer, e vector(8));
CREATE INDEX temporary_idx ON temporary_table USING hybrid (e);
INSERT INTO temporary_table SELECT * FROM large_table;
SELECT ordered, once, recall >= 0.95 AS recall_95 FROM test_compare('temporary_table', '<->', 8, 10);
REINDEX INDEX temporary_idx;
SELECT ordered, once, recall >= 0.95 AS recall_95 FROM test_compare('temporary_table', '<->', 8, 10);
DELETE FROM temporary_table WHERE id % 2 = 0;
VACUUM temporary_table;
SELECT ordered, once, recall >= 0.95 AS recall_95 FROM test_compare('temporary_table', '<->', 8, 10);
SELECT count(*) FROM hybrid_check('temporary_idx', true);
CREATE TEMPORARY TABLE on_commit_table (id integer, e vector(3)) ON COMMIT DELETE ROWS;
CREATE INDEX on_commit_idx ON on_commit_table USING hybrid (e);
BEGIN;
INSERT INTO on_commit_table SELECT id, e FROM small_table;
SELECT ordered, once, same FROM test_compare('on_commit_table', '<->', 3, 100);
COMMIT;
SELECT rows, segments FROM hybrid_stats('on_commit_idx');
INSERT INTO on_commit_table SELECT id, e FROM small_table;
SELECT count(*) FROM hybrid_check('on_commit_idx', true);

-- CONCURRENTLY, REINDEX and REINDEX CONCURRENTLY.
CREATE INDEX CONCURRENTLY concurrent_idx ON large_table USING hybrid (e vector_cosine_ops);
SELECT indisvalid, indisready FROM pg_index WHERE indexrelid = 'concurrent_idx'::regclass;
SELECT ordered, once, recall >= 0.95 AS recall_95 FROM test_compare('large_table', '<=>', 8, 10);
REINDEX INDEX concurrent_idx;
SELECT ordered, once, recall >= 0.95 AS recall_95 FROM test_compare('large_table', '<=>', 8, 10);
REINDEX INDEX CONCURRENTLY concurrent_idx;
SELECT ordered, once, recall >= 0.95 AS recall_95 FROM test_compare('large_table', '<=>', 8, 10);
REINDEX TABLE CONCURRENTLY large_table;
SELECT count(*) FROM hybrid_check('concurrent_idx', true);
SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'large_table'::regclass;
DROP INDEX CONCURRENTLY concurrent_idx;

-- Several indexes on one table, each for its operator.
CREATE INDEX several_l2 ON large_table USING hybrid (e vector_l2_ops);
CREATE INDEX several_ip ON large_table USING hybrid (e vector_ip_ops);
CREATE INDEX several_cosine ON large_table USING hybrid (e vector_cosine_ops);
CREATE INDEX several_l1 ON large_table USING hybrid (e vector_l1_ops);
SET enable_seqscan = off;
SELECT test_plan($$SELECT id FROM large_table ORDER BY e <-> test_vector(-1, 8) LIMIT 5$$);
SELECT test_plan($$SELECT id FROM large_table ORDER BY e <#> test_vector(-1, 8) LIMIT 5$$);
SELECT test_plan($$SELECT id FROM large_table ORDER BY e <=> test_vector(-1, 8) LIMIT 5$$);
SELECT test_plan($$SELECT id FROM large_table ORDER BY e <+> test_vector(-1, 8) LIMIT 5$$);
RESET enable_seqscan;
UPDATE large_table SET e = test_vector(id + 10000, 8) WHERE id % 16 = 0;
SELECT op, t.ordered, t.once, t.recall >= 0.95 AS recall_95
    FROM unnest(ARRAY['<->', '<#>', '<=>', '<+>']) op, test_compare('large_table', op, 8, 10) t;
DROP INDEX several_l2, several_ip, several_cosine, several_l1;

-- Expressions: a column without dimensions, and part of a vector.
CREATE TABLE untyped_table (id integer, e vector);
INSERT INTO untyped_table SELECT id, e FROM small_table;
CREATE INDEX untyped_idx ON untyped_table USING hybrid (e);
\set VERBOSITY sqlstate
CREATE INDEX untyped_idx ON untyped_table USING hybrid (e);
CREATE INDEX untyped_idx ON empty_table USING hybrid ((e + e));
\set VERBOSITY default
CREATE INDEX untyped_idx ON untyped_table USING hybrid ((e::vector(3)) vector_l2_ops);
SELECT ordered, once, same FROM test_compare('untyped_table', '<->', 3, 100, vec => 'e::vector(3)');
INSERT INTO untyped_table VALUES (101, '[1,2,3,4]');
INSERT INTO untyped_table VALUES (101, '[1,2,3]');
CREATE INDEX ON untyped_table USING hybrid ((subvector(e, 1, 2)::vector(2)) vector_l2_ops);
SELECT ordered, once, same FROM test_compare('untyped_table', '<->', 2, 101, vec => 'subvector(e, 1, 2)::vector(2)');
-- Vectors of several dimensions in one column, with an index for each.
CREATE TABLE mixed_table (id integer, e vector);
INSERT INTO mixed_table SELECT i, test_vector(i, 2 + i % 2) FROM generate_series(1, 200) i;
CREATE INDEX ON mixed_table USING hybrid ((e::vector(3)) vector_l2_ops);
CREATE INDEX mixed_2 ON mixed_table USING hybrid ((e::vector(2)) vector_l2_ops) WHERE vector_dims(e) = 2;
CREATE INDEX mixed_3 ON mixed_table USING hybrid ((e::vector(3)) vector_l2_ops) WHERE vector_dims(e) = 3;
INSERT INTO mixed_table VALUES (201, '[0,0]'), (202, '[0,0,0]'), (203, '[0,0,0,0]'), (204, NULL);
SET enable_seqscan = off;
SELECT id FROM mixed_table WHERE vector_dims(e) = 2 ORDER BY e::vector(2) <-> '[0,0]' LIMIT 1;
SELECT id FROM mixed_table WHERE vector_dims(e) = 3 ORDER BY e::vector(3) <-> '[0,0,0]' LIMIT 1;
RESET enable_seqscan;
SELECT i, rows FROM unnest(ARRAY['mixed_2', 'mixed_3']) i, hybrid_stats(i::regclass);

-- Partial.
CREATE INDEX partial_idx ON small_table USING hybrid (e) WHERE id > 50;
SELECT reltuples FROM pg_class WHERE oid = 'partial_idx'::regclass;
SELECT ordered, once, same FROM test_compare('small_table WHERE id > 50', '<->', 3, 100);
UPDATE small_table SET id = id + 100 WHERE id <= 25;
SELECT ordered, once, same FROM test_compare('small_table WHERE id > 50', '<->', 3, 100);
UPDATE small_table SET id = id - 100 WHERE id > 100;
SELECT ordered, once, same FROM test_compare('small_table WHERE id > 50', '<->', 3, 100);
VACUUM small_table;
SELECT ordered, once, same FROM test_compare('small_table WHERE id > 50', '<->', 3, 100);
SELECT count(*) FROM hybrid_check('partial_idx', true);
DROP INDEX partial_idx;

-- Partitioned.
CREATE TABLE parted (id integer, part integer, e vector(3)) PARTITION BY LIST (part);
CREATE TABLE parted_0 PARTITION OF parted FOR VALUES IN (0);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
INSERT INTO parted SELECT i, i % 2, test_vector(i, 3) FROM generate_series(1, 200) i;
CREATE INDEX parted_idx ON parted USING hybrid (e vector_l2_ops) WITH (m = 8);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2);
CREATE TABLE parted_3 (LIKE parted);
INSERT INTO parted_3 SELECT i, 3, test_vector(i, 3) FROM generate_series(201, 300) i;
CREATE INDEX parted_3_own ON parted_3 USING hybrid (e);
ALTER TABLE parted ATTACH PARTITION parted_3 FOR VALUES IN (3);
INSERT INTO parted SELECT i, 2, test_vector(i, 3) FROM generate_series(301, 400) i;
SELECT inhrelid::regclass AS index, reloptions FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'parted_idx'::regclass ORDER BY 1;
SELECT ordered, once, same FROM test_compare('parted', '<->', 3, 400);
UPDATE parted SET part = (part + 1) % 4 WHERE id % 3 = 0;
SELECT ordered, once, same FROM test_compare('parted', '<->', 3, 400);
SELECT count(*) FROM hybrid_check('parted_0_e_idx', true);
SELECT * FROM hybrid_stats('parted_idx');
REINDEX INDEX parted_idx;
ALTER TABLE parted DETACH PARTITION parted_1;
SELECT ordered, once, same FROM test_compare('parted', '<->', 3, 400);

-- Not with this access method.
CREATE INDEX ON small_table USING hybrid (e) INCLUDE (id);
CREATE UNIQUE INDEX ON small_table USING hybrid (e);
SELECT test_error('CREATE INDEX ON small_table USING hybrid (e, e)');
CREATE INDEX ON small_table USING hybrid (e DESC);
CREATE INDEX ON small_table USING hybrid (e NULLS FIRST);
CREATE INDEX ON small_table USING hybrid (id);
CREATE INDEX ON small_table USING hybrid (e vector_ops);
CREATE INDEX ON small_table USING btree (e vector_l2_ops);
SELECT test_error('ALTER TABLE small_table ADD EXCLUDE USING hybrid (e WITH <->)');
SELECT test_error('ALTER TABLE small_table ADD EXCLUDE USING hybrid (e WITH =)');
CREATE INDEX small_idx ON small_table USING hybrid (e);
CLUSTER small_table USING small_idx;
ALTER TABLE small_table ADD CONSTRAINT small_key UNIQUE USING INDEX small_idx;

SET client_min_messages = warning;
DROP SCHEMA hybrid_create CASCADE;
