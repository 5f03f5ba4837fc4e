-- SQLSTATEs of the faults that the other tests show by message.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS hybridvec;
RESET client_min_messages;

\set VERBOSITY sqlstate
-- 22P02, text that is no vector
SELECT '[1,,2]'::vector;
SELECT '[1,2'::vector;
SELECT '[1]x'::vector;
SELECT ''::vector;
SELECT '[1]'::vector('a');
-- 22000, numbers that make no vector
SELECT '[]'::vector;
SELECT '[NaN]'::vector;
SELECT '[inf]'::vector;
SELECT '[1,2]'::vector(3);
SELECT '{{1},{2}}'::real[]::vector;
SELECT '{Infinity}'::real[]::vector;
SELECT '{1e39}'::float8[]::vector;
SELECT '[1]'::vector <-> '[1,2]';
SELECT '[1]'::vector + '[1,2]';
SELECT subvector('[1]', 2, 1);
SELECT vector_accum('{}', '[1]');
SELECT vector_avg('{1,1e300}');
-- 22003, out of range
SELECT '[4e38]'::vector;
SELECT '{1e39}'::numeric[]::vector;
SELECT '[3e38]'::vector + '[3e38]';
SELECT '[1e-30]'::vector * '[1e-30]';
SELECT vector_combine('{1,1e308}', '{1,1e308}');
-- 22004, NULL elements
SELECT '{NULL}'::real[]::vector;
-- 22023, type modifiers
SELECT '[1]'::vector(0);
SELECT '[1]'::vector(16001);
SELECT '[1]'::vector(1, 1);
-- 08P01, a message that ends too early
CREATE TABLE type_sqlstate (v vector);
COPY type_sqlstate FROM PROGRAM $$printf 'PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0\0\1\0\0\0\4\0\2\0\0\377\377'$$ (FORMAT binary);
DROP TABLE type_sqlstate;
-- 54000, too many dimensions
SELECT ('[' || repeat('0,', 16000) || '0]')::vector;
SELECT array_fill(1, ARRAY[16001])::vector;
SELECT array_fill(1, ARRAY[16000])::vector || '[1]'::vector;
