-- Casts from and to arrays, and to a declared number of dimensions.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS hybridvec;
RESET client_min_messages;

SELECT '{1,2,3}'::integer[]::vector, '{1,2.5,-3}'::real[]::vector, '{1,0.1,1e-50}'::double precision[]::vector(3), '{1,0.1,-3.75}'::numeric[]::vector;
SELECT '[1,2.5,-0]'::vector::real[], pg_typeof('[1]'::vector::real[]), array_dims('[1,2]'::vector::real[]);
SELECT '[5:6]={1,2}'::real[]::vector, (ARRAY[1, NULL, 3])[1:1]::vector, array_replace(ARRAY[1.5, NULL], NULL, 2)::vector;
SELECT array_to_vector(ARRAY[1, 2], 2, true), vector_to_float4('[1,2]', -1, false), vector('[1,2]'::vector, 2, false);
SELECT '[1,2]'::text::vector, '[1,2]'::vector::text;
-- implicit to real[], on assignment from arrays
SELECT '[1,2]'::vector = ARRAY[1,2]::vector AS same;
CREATE TABLE type_casts (v vector(2), a real[]);
INSERT INTO type_casts VALUES (ARRAY[1, 2], '[1,2]'::vector), (ARRAY[1.5, 2.5], '[3]'::vector), ('{1,2}'::real[], NULL), ('{3,4}'::float8[], '{}');
SELECT * FROM type_casts;
INSERT INTO type_casts (v) VALUES (ARRAY[1, 2, 3]);
INSERT INTO type_casts (v) VALUES ('[1,2,3]'::vector);
INSERT INTO type_casts (v) VALUES (ARRAY[1, 2]::bigint[]);
DROP TABLE type_casts;
SELECT l2_distance('[1,2]', ARRAY[1, 2]);

SELECT '{}'::real[]::vector;
SELECT '{1,NULL}'::integer[]::vector;
SELECT '{NULL}'::numeric[]::vector;
SELECT '{{1,2},{3,4}}'::real[]::vector;
SELECT '{NaN}'::real[]::vector;
SELECT '{1,Infinity}'::double precision[]::vector;
SELECT '{1e39}'::double precision[]::vector;
SELECT '{1e39}'::numeric[]::vector;
SELECT '{NaN}'::numeric[]::vector;
SELECT '{1,2,3}'::integer[]::vector(2);
SELECT '{1,2,3}'::numeric[]::vector(4);
SELECT '[1,2,3]'::vector::vector(2);
SELECT vector_dims(array_fill(1, ARRAY[16000])::vector), vector_dims(array_fill(1.5, ARRAY[16000])::vector);
SELECT array_fill(1, ARRAY[16001])::vector;
