-- Values at the edges: NULL, zero, duplicates, wrong dimensions, extremes, many dimensions.
CREATE SCHEMA hybrid_edge;
SET search_path = hybrid_edge, public;
SET enable_seqscan = off;

-- NULL vectors are not indexed, and not lost.
CREATE TABLE t (id integer, e vector(2));
INSERT INTO t VALUES (1, '[1,0]'), (2, NULL), (3, '[0,2]'), (4, '[0,0]'), (5, '[-3,0]');
CREATE INDEX t_l2 ON t USING hybrid (e vector_l2_ops);
CREATE INDEX t_cosine ON t USING hybrid (e vector_cosine_ops);
INSERT INTO t VALUES (6, NULL), (7, '[0,0]'), (8, '[5,5]');
SELECT i, rows FROM unnest(ARRAY['t_l2', 't_cosine']) i, hybrid_stats(i::regclass);
SELECT count(*), count(e) FROM t;
SELECT id FROM t WHERE e IS NULL ORDER BY id;
SELECT count(*) FROM t WHERE e IS NOT NULL;
SELECT id, e <-> '[0,0]' AS d FROM t ORDER BY (e <-> '[0,0]') + 0, id;
SELECT id, e <-> '[0.1,0]' AS d FROM t WHERE e IS NOT NULL ORDER BY e <-> '[0.1,0]' LIMIT 3;
SELECT id, e <-> '[0.1,0]' AS d FROM t WHERE e IS NULL ORDER BY (e <-> '[0.1,0]') + 0, id LIMIT 3;
UPDATE t SET e = NULL WHERE id = 8;
UPDATE t SET e = '[9,9]' WHERE id = 6;
SELECT id FROM t ORDER BY e <-> '[9,9]' LIMIT 1;
SELECT * FROM hybrid_check('t_l2', true);
-- Zero vectors have no cosine distance: they are not indexed.
SELECT id, e <=> '[1,1]' AS d FROM t WHERE e <> '[0,0]' ORDER BY e <=> '[1,1]', id;
SELECT id FROM t ORDER BY e <=> '[1,0.1]' LIMIT 4;
SELECT * FROM hybrid_check('t_cosine', true);
UPDATE t SET e = '[0,1]' WHERE id = 7;
SELECT id FROM t ORDER BY e <=> '[-0.1,1]' LIMIT 2;
-- A NULL query, a zero query under cosine: all rows that are indexed, in any order, distance NULL or NaN.
PREPARE by_l2(vector) AS SELECT id, e <-> $1 AS d FROM t ORDER BY e <-> $1 LIMIT 20;
PREPARE by_cosine(vector) AS SELECT id, e <=> $1 AS d FROM t ORDER BY e <=> $1 LIMIT 20;
SET plan_cache_mode = force_generic_plan;
SELECT test_plan($$EXECUTE by_l2(NULL)$$);
CREATE TABLE answers AS EXECUTE by_l2(NULL);
SELECT count(*), count(d), array_agg(id ORDER BY id) FROM answers;
DROP TABLE answers;
CREATE TABLE answers AS EXECUTE by_cosine('[0,0]');
SELECT count(*), array_agg(DISTINCT d), array_agg(id ORDER BY id) FROM answers;
DROP TABLE answers;
CREATE TABLE answers AS EXECUTE by_cosine(NULL);
SELECT count(*), count(d), array_agg(id ORDER BY id) FROM answers;
SET plan_cache_mode = force_custom_plan;
SELECT count(*) FROM (SELECT id FROM t ORDER BY e <-> NULL LIMIT 20) s;
RESET plan_cache_mode;
-- Rescans with NULL among the queries.
SELECT q.n, array_agg(s.id) FROM (VALUES (1, '[9,9]'::vector), (2, NULL), (3, '[1,0]')) q(n, v)
    CROSS JOIN LATERAL (SELECT id, e <-> v AS d FROM t ORDER BY e <-> q.v LIMIT 1) s WHERE s.d IS NOT NULL GROUP BY 1 ORDER BY 1;
-- Wrong dimensions.
INSERT INTO t VALUES (9, '[1,2,3]');
SELECT id FROM t ORDER BY e <-> '[1,2,3]' LIMIT 1;
SELECT id FROM t ORDER BY e <=> '[1]' LIMIT 1;
SELECT id FROM t ORDER BY e <=> '[0,0,0]' LIMIT 1;
EXECUTE by_l2('[1,2,3]');
\set VERBOSITY sqlstate
SELECT id FROM t ORDER BY e <-> '[1,2,3]' LIMIT 1;
SELECT id FROM t ORDER BY e <-> '[NaN,1]' LIMIT 1;
SELECT id FROM t ORDER BY e <-> '[inf,1]' LIMIT 1;
INSERT INTO t VALUES (9, '[NaN,1]');
INSERT INTO t VALUES (9, '[1,-Infinity]');
INSERT INTO t VALUES (9, '[]');
INSERT INTO t VALUES (9, '[1,,2]');
INSERT INTO t VALUES (9, '[1e39,0]');
INSERT INTO t VALUES (9, '[1,2,3]');
\set VERBOSITY default
SELECT count(*) FROM t WHERE id = 9;
SELECT * FROM hybrid_check('t_l2', true);

-- Duplicates by the thousand: all returned, each once, before and after deletes and vacuum.
CREATE TABLE dup (id integer, e vector(3));
CREATE INDEX dup_inserted ON dup USING hybrid (e) WITH (pending_rows = 0);
INSERT INTO dup SELECT i, '[1,2,3]' FROM generate_series(1, 2000) i;
INSERT INTO dup SELECT i, '[3,2,1]' FROM generate_series(2001, 4000) i;
INSERT INTO dup SELECT i, test_vector(i, 3) FROM generate_series(4001, 4100) i;
SELECT rows, elements FROM hybrid_stats('dup_inserted');
SELECT ordered, once, same FROM test_compare('dup', '<->', 3, 4100, 3);
SELECT count(DISTINCT id) FROM (SELECT id FROM dup ORDER BY e <-> '[1,2,3]' LIMIT 2000) s WHERE id <= 2000;
SELECT count(DISTINCT id) FROM (SELECT id FROM dup ORDER BY e <-> '[1,2,3]' LIMIT 1000 OFFSET 1500) s;
REINDEX INDEX dup_inserted;
SELECT rows, elements FROM hybrid_stats('dup_inserted');
SELECT ordered, once, same FROM test_compare('dup', '<->', 3, 4100, 3);
SELECT * FROM hybrid_check('dup_inserted', true);
DELETE FROM dup WHERE id % 2 = 0;
SELECT count(DISTINCT id) FROM (SELECT id FROM dup ORDER BY e <-> '[1,2,3]' LIMIT 1000) s WHERE id <= 2000;
VACUUM dup;
SELECT rows FROM hybrid_stats('dup_inserted');
SELECT * FROM hybrid_check('dup_inserted', true);
SELECT ordered, once, same FROM test_compare('dup', '<->', 3, 4100, 3);
DELETE FROM dup WHERE e = '[1,2,3]';
VACUUM dup;
SELECT count(*) FROM (SELECT id, e FROM dup ORDER BY e <-> '[1,2,3]' LIMIT 1100) s;
INSERT INTO dup SELECT -i, '[1,2,3]' FROM generate_series(1, 1500) i;
SELECT count(DISTINCT id), max(id) FROM (SELECT id FROM dup ORDER BY e <-> '[1,2,3]' LIMIT 1500) s;
SELECT * FROM hybrid_check('dup_inserted', true);
-- All rows equal; zero vectors.
CREATE TABLE equal (id integer, e vector(3));
INSERT INTO equal SELECT i, '[0,0,0]' FROM generate_series(1, 3000) i;
CREATE INDEX ON equal USING hybrid (e vector_l2_ops);
CREATE INDEX ON equal USING hybrid (e vector_ip_ops);
CREATE INDEX ON equal USING hybrid (e vector_cosine_ops);
SELECT op, t.ordered, t.once, t.same FROM unnest(ARRAY['<->', '<#>']) op, test_compare('equal', op, 3, 3000, 2) t;
SELECT count(*) FROM (SELECT FROM equal ORDER BY e <=> '[1,1,1]' LIMIT 10) s;
-- Many near duplicates, whose codes are the same and whose values are not.
CREATE TABLE near (id integer, e vector(3));
INSERT INTO near SELECT i, format('[%s,%s,%s]', 1 + i * 1e-7, 2, 3)::vector FROM generate_series(1, 3000) i;
CREATE INDEX ON near USING hybrid (e vector_l2_ops);
INSERT INTO near SELECT 3000 + i, format('[%s,%s,%s]', 1 - i * 1e-7, 2, 3)::vector FROM generate_series(1, 500) i;
WITH found AS (SELECT id, d, row_number() OVER () AS n FROM (SELECT id, e <-> '[1,2,3]' AS d FROM near ORDER BY e <-> '[1,2,3]' LIMIT 3500) s)
SELECT count(DISTINCT id), bool_and(d >= before OR before IS NULL) FROM (SELECT *, lag(d) OVER (ORDER BY n) AS before FROM found) s;

-- As large and as small as numbers get: overflow, underflow and loss of digits in the distance must not disturb the order.
-- Before it was bounded, this raised "index returned tuples in wrong order".
CREATE TABLE extreme (id integer, e vector(3));
INSERT INTO extreme SELECT i, e::vector FROM unnest(ARRAY['[1e38,1e38,1e38]', '[-1e38,1e38,0]', '[3.4e38,-3.4e38,3.4e38]', '[1e20,0,0]',
    '[-1e20,1e19,0]', '[1e19,1e19,1e19]', '[1,0,0]', '[0,1,0]', '[-1,-1,-1]', '[1e-20,0,0]', '[1e-22,1e-22,1e-22]', '[1e-22,-1e-22,0]',
    '[1e-23,0,0]', '[1e-30,1e-30,0]', '[1e-38,1e-38,1e-38]', '[1e-40,0,-1e-40]', '[1e-45,1e-45,0]', '[0,0,0]', '[1e38,1e-38,0]',
    '[1e30,1e-30,1]', '[16777216,16777217,1]']) WITH ORDINALITY u(e, i);
CREATE FUNCTION extremes(op text, OUT queries bigint, OUT ordered boolean, OUT once boolean, OUT same boolean) LANGUAGE plpgsql AS $$
DECLARE
    q vector;
    sql text;
    found record;
    exact record;
BEGIN
    queries := 0; ordered := true; once := true; same := true;
    FOR q IN SELECT e FROM extreme WHERE id < 100 UNION ALL SELECT '[0,0,0]'::vector - e FROM extreme WHERE id < 100 LOOP
        sql := format('SELECT id, e %s %L::vector FROM extreme WHERE vector_norm(e) > 0 ORDER BY e %1$s %2$L::vector LIMIT 100', op, q);
        found := test_by_index(sql);
        exact := test_by_table(sql);
        queries := queries + 1;
        ordered := ordered AND found.distances = (SELECT array_agg(d ORDER BY d) FROM unnest(found.distances) d);
        once := once AND cardinality(found.ids) = (SELECT count(DISTINCT id) FROM unnest(found.ids) id);
        same := same AND found.distances = exact.distances;
    END LOOP;
END $$;
CREATE INDEX extreme_l2 ON extreme USING hybrid (e vector_l2_ops);
CREATE INDEX extreme_ip ON extreme USING hybrid (e vector_ip_ops);
CREATE INDEX extreme_cosine ON extreme USING hybrid (e vector_cosine_ops);
CREATE INDEX extreme_l1 ON extreme USING hybrid (e vector_l1_ops);
SELECT op, x.* FROM unnest(ARRAY['<->', '<#>', '<=>', '<+>']) op, extremes(op) x;
-- And in the company of 900 inserted rows of ordinary size, so that the graph is searched.
SET hybrid.ef_search = 10;
INSERT INTO extreme SELECT 100 + i, test_vector(i, 3) FROM generate_series(1, 900) i;
SELECT op, ordered, once FROM unnest(ARRAY['<->', '<#>', '<=>', '<+>']) op, extremes(op) x;
SELECT op, ordered, once FROM unnest(ARRAY['<->', '<#>', '<=>', '<+>']) op, test_compare('extreme', op, 3, 30, 5) t;
SELECT i, count(problem) FROM unnest(ARRAY['extreme_l2', 'extreme_ip', 'extreme_cosine', 'extreme_l1']) i
    LEFT JOIN LATERAL hybrid_check(i::regclass, true) ON true GROUP BY 1 ORDER BY 1;
RESET hybrid.ef_search;

-- From 1 to 16,000 dimensions.
CREATE FUNCTION dimensions(dim integer, built integer, inserted integer, OUT rows bigint, OUT problems bigint, OUT l2 boolean,
        OUT ip boolean, OUT cosine boolean, OUT l1 boolean) LANGUAGE plpgsql AS $$
DECLARE
    c record;
BEGIN
    EXECUTE format('CREATE TABLE wide (id integer, e vector(%s))', dim);
    INSERT INTO wide SELECT i, test_vector(i, dim) FROM generate_series(1, built) i;
    CREATE INDEX wide_l2 ON wide USING hybrid (e vector_l2_ops);
    CREATE INDEX wide_ip ON wide USING hybrid (e vector_ip_ops) WITH (m = 4);
    CREATE INDEX wide_cosine ON wide USING hybrid (e vector_cosine_ops) WITH (m = 100, ef_construction = 200);
    CREATE INDEX wide_l1 ON wide USING hybrid (e vector_l1_ops);
    INSERT INTO wide SELECT i, test_vector(i, dim) FROM generate_series(built + 1, built + inserted) i;
    rows := (SELECT s.rows FROM hybrid_stats('wide_l2') s);
    problems := (SELECT sum((SELECT count(*) FROM hybrid_check(i::regclass, true)))
        FROM unnest(ARRAY['wide_l2', 'wide_ip', 'wide_cosine', 'wide_l1']) i);
    c := test_compare('wide', '<->', dim, built + inserted, 2); l2 := c.ordered AND c.once AND c.same;
    c := test_compare('wide', '<#>', dim, built + inserted, 2); ip := c.ordered AND c.once AND c.same;
    c := test_compare('wide', '<=>', dim, built + inserted, 2); cosine := c.ordered AND c.once AND c.same;
    c := test_compare('wide', '<+>', dim, built + inserted, 2); l1 := c.ordered AND c.once AND c.same;
    DROP TABLE wide;
END $$;
SELECT dim, d.* FROM unnest(ARRAY[1, 2, 7, 384, 2000, 2001, 4096]) dim, dimensions(dim, 30, 30) d;
SELECT dim, d.* FROM unnest(ARRAY[7900, 8192, 15999, 16000]) dim, dimensions(dim, 8, 8) d;
-- Enough rows that the graph is searched at one, and at many, dimensions.
CREATE TABLE thin (id integer, e vector(1));
INSERT INTO thin SELECT i, test_vector(i, 1) FROM generate_series(1, 5000) i;
CREATE INDEX ON thin USING hybrid (e);
SELECT ordered, once, recall >= 0.95 AS recall_95 FROM test_compare('thin', '<->', 1, 10, 10);
CREATE TABLE wide (id integer, e vector(2000));
INSERT INTO wide SELECT i, test_vector(i, 2000) FROM generate_series(1, 700) i;
CREATE INDEX ON wide USING hybrid (e) WITH (ef_search = 10);
SELECT ordered, once FROM test_compare('wide', '<->', 2000, 10, 3);
CREATE TABLE too_wide (e vector(16001));

SET client_min_messages = warning;
DROP SCHEMA hybrid_edge CASCADE;

-- An index's expressions are the owner's code, and run as the owner, whoever looks at the index.
CREATE ROLE hybrid_edge_owner;
CREATE SCHEMA hybrid_edge_own AUTHORIZATION hybrid_edge_owner;
SET ROLE hybrid_edge_owner;
CREATE TABLE hybrid_edge_own.seen (who name, by text);
CREATE FUNCTION hybrid_edge_own.note() RETURNS void VOLATILE LANGUAGE sql AS $$
    INSERT INTO hybrid_edge_own.seen VALUES (current_user, current_setting('hybrid_edge.by', true))
$$;
CREATE FUNCTION hybrid_edge_own.same(e vector) RETURNS vector IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN PERFORM hybrid_edge_own.note(); RETURN e; END $$;
CREATE TABLE hybrid_edge_own.t (id int, e vector(2));
INSERT INTO hybrid_edge_own.t VALUES (1, '[1,2]'), (2, '[3,4]');
CREATE INDEX owned ON hybrid_edge_own.t USING hybrid ((hybrid_edge_own.same(e)::vector(2)));
RESET ROLE;
SET hybrid_edge.by = 'check';
SELECT * FROM hybrid_check('hybrid_edge_own.owned', true);
SET hybrid_edge.by = 'recall';
SELECT recall FROM hybrid_recall('hybrid_edge_own.owned', 2, 1);
SELECT DISTINCT who, by FROM hybrid_edge_own.seen ORDER BY by;
RESET hybrid_edge.by;
SET client_min_messages = warning;
DROP SCHEMA hybrid_edge_own CASCADE;
DROP ROLE hybrid_edge_owner;
