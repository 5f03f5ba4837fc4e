-- Text input and output, and the type modifier.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS hybridvec;
RESET client_min_messages;

-- White space and every way to write a number.
SELECT '[1,2,3]'::vector;
SELECT E' \t\n\r\x0b\f[ 1 ,\t2\n, 3 ] '::vector;
SELECT '[+1,-2,.5,5.,-0,1e3,1E-3,1e+2,0x10,0x1p-2,-0X.8]'::vector;

-- Output is the shortest text that reads back as the same number, in the notation of real.
SELECT '[0.1,0.30000001,123456,1234567,0.0001,0.00001,1e20,1e-10,16777217,3.4028235e38,1e-45]'::vector;
SELECT x::vector(1)::text = '[' || x[1]::text || ']' AS as_real
FROM unnest(ARRAY[0.1, 1e-5, 123456.7, 1e6, 33554432, 8388608.5]::real[]) y, LATERAL (SELECT ARRAY[y] AS x) z;

-- Too small is zero (real refuses that); too large is an error.
SELECT '[1e-46,-1e-60,1e-400]'::vector;
SELECT '[1,1e39]'::vector;
SELECT '[ -4e38]'::vector;
SELECT '[0x1p128]'::vector;
SELECT '[3.40282357e38]'::vector;

-- Only finite numbers.
SELECT '[NaN,1]'::vector;
SELECT '[Infinity]'::vector;
SELECT '[1,-inf]'::vector;

-- What is not a vector.
SELECT ''::vector;
SELECT '1,2'::vector;
SELECT '{1,2}'::vector;
SELECT '['::vector;
SELECT '[]'::vector;
SELECT '[ ]'::vector;
SELECT '[1'::vector;
SELECT '[1,2'::vector;
SELECT '[1,]'::vector;
SELECT '[,1]'::vector;
SELECT '[1,,2]'::vector;
SELECT '[1 2]'::vector;
SELECT '[1e]'::vector;
SELECT '[0x]'::vector;
SELECT '[a]'::vector;
SELECT '[null]'::vector;
SELECT '[1]]'::vector;
SELECT '[1] x'::vector;
SELECT '[[1]]'::vector;

-- Dimensions.
SELECT vector_dims(('[' || repeat('0,', 15999) || '0]')::vector(16000));
SELECT vector_dims(('[' || repeat('0,', 16000) || '0]')::vector);
SELECT '[1,2,3]'::vector(3);
SELECT '[1,2,3]'::vector(2);
SELECT '[1,2,3]'::vector(0);
SELECT '[1,2,3]'::vector(-1);
SELECT '[1,2,3]'::vector(16001);
SELECT '[1,2,3]'::vector(1, 2);
SELECT '[1,2,3]'::vector('a');
CREATE TABLE type_io (v vector(3));
INSERT INTO type_io VALUES ('[1,2,3]'), (NULL);
INSERT INTO type_io VALUES ('[1,2]');
COPY type_io FROM stdin;
[4,5,6]
\N
\.
COPY type_io FROM stdin;
[4,5]
\.
SELECT * FROM type_io;
COPY type_io TO stdout;
SELECT format_type(atttypid, atttypmod), attstorage, attalign FROM pg_attribute WHERE attrelid = 'type_io'::regclass AND attname = 'v';
DROP TABLE type_io;
