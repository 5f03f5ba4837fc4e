-- Order: comparison operators, btree, sorting, grouping, joins.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS hybridvec;
RESET client_min_messages;

SELECT a, b, a < b AS lt, a <= b AS le, a = b AS eq, a <> b AS ne, a >= b AS ge, a > b AS gt, vector_cmp(a, b)
FROM (VALUES ('[1,2]'::vector, '[1,2]'::vector), ('[1,2]', '[1,3]'), ('[2]', '[1,3]'), ('[1]', '[1,0]'), ('[1,0]', '[1,-0]'), ('[-1]', '[1]')) t(a, b);
CREATE TABLE type_order AS SELECT ARRAY[i % 10, i]::vector AS v, i FROM generate_series(1, 1000) i;
INSERT INTO type_order VALUES (NULL, 0), ('[1]', -1), ('[5,5,5]', -2);
CREATE UNIQUE INDEX ON type_order (v);
ANALYZE type_order;
SET enable_seqscan = off;
EXPLAIN (COSTS off) SELECT i FROM type_order WHERE v = '[7,17]';
SELECT i FROM type_order WHERE v = '[7,17]';
SELECT count(*) FROM type_order WHERE v > '[3]' AND v <= '[5,100]';
SELECT v FROM type_order ORDER BY v LIMIT 3;
SELECT v FROM type_order ORDER BY v DESC NULLS LAST LIMIT 3;
INSERT INTO type_order VALUES ('[7,17]');
RESET enable_seqscan;
SELECT count(DISTINCT v), count(DISTINCT subvector(v, 1, 1)) FROM type_order;
SELECT subvector(v, 1, 1), count(*) FROM type_order GROUP BY 1 ORDER BY 1 LIMIT 3;
SELECT count(*) FROM type_order a JOIN type_order b USING (v);
DROP TABLE type_order;
