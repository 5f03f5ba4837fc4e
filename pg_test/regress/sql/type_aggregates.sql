-- avg(vector) and sum(vector).
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS hybridvec;
RESET client_min_messages;

CREATE TABLE type_aggregates AS SELECT i, ARRAY[i, -i, i % 3]::vector(3) AS v FROM generate_series(1, 1000) i;
INSERT INTO type_aggregates VALUES (0, NULL);
SELECT avg(v), sum(v) FROM type_aggregates WHERE i <= 10;
SELECT avg(v), sum(v) FROM type_aggregates WHERE i = 0;
SELECT avg(v), sum(v) FROM type_aggregates WHERE false;
SELECT i % 2 AS odd, avg(v), sum(v) FROM type_aggregates WHERE i <= 10 GROUP BY 1 ORDER BY 1;
-- a state that a window function goes on using after it was read
SELECT i, avg(v) OVER (ORDER BY i), sum(v) OVER (ORDER BY i ROWS 1 PRECEDING) FROM type_aggregates WHERE i <= 4 ORDER BY i;
-- in parallel
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
EXPLAIN (COSTS off) SELECT avg(v), sum(v) FROM type_aggregates;
SELECT avg(v), sum(v) FROM type_aggregates;
SELECT i % 3 AS remainder, avg(v) FROM type_aggregates GROUP BY 1 ORDER BY 1;
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;
DROP TABLE type_aggregates;
-- summed in double precision, returned in single
SELECT avg(v) FROM (VALUES ('[3e38]'::vector), ('[3e38]')) t(v);
SELECT sum(v) FROM (VALUES ('[3e38]'::vector), ('[3e38]')) t(v);
SELECT avg(v) FROM (VALUES ('[1,2]'::vector), ('[1]')) t(v);
SELECT sum(v) FROM (VALUES ('[1,2]'::vector), ('[1]')) t(v);
-- the functions below the aggregates take any array
SELECT vector_accum('{0}', '[1,2]'), vector_accum('{1,2,3}', '[1,2]'), vector_combine('{0}', '{2,3}'), vector_combine('{2,3}', '{0}'), vector_combine('{2,3}', '{1,4}');
SELECT vector_avg('{2,3,5}'), vector_avg('{0}');
SELECT vector_accum('{}', '[1]');
SELECT vector_accum('{NULL}', '[1]');
SELECT vector_accum('{{1,2}}', '[1]');
SELECT vector_accum('{1,2}', '[1,2]');
SELECT vector_accum('{1,1.7976931348623157e308}', '[3e38]');
SELECT vector_combine('{1,1e308}', '{1,1e308}');
SELECT vector_combine('{2,3}', '{1,4,5}');
SELECT vector_combine('{}', '{1,4,5}');
SELECT vector_avg('{1}');
SELECT vector_avg('{}');
SELECT vector_avg('{1,1e300}');
SELECT vector_avg('{1,NaN}');
-- and leave alone what they are given
WITH s AS MATERIALIZED (SELECT '{1,2}'::float8[] AS state) SELECT vector_accum(state, '[1]'), state FROM s;
