-- Every form in which a vector is stored: short, plain, toasted, compressed, damaged.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS hybridvec;
RESET client_min_messages;

SET default_toast_compression = pglz;
CREATE TABLE type_storage (id serial, kind text, v vector);
ALTER TABLE type_storage ALTER v SET STORAGE external;
INSERT INTO type_storage (kind, v) SELECT 'short', array_agg(i)::vector FROM generate_series(1, 30) i;
INSERT INTO type_storage (kind, v) SELECT 'plain', array_agg(i)::vector FROM generate_series(1, 31) i;
INSERT INTO type_storage (kind, v) SELECT 'toasted', array_agg(i)::vector FROM generate_series(1, 3000) i;
ALTER TABLE type_storage ALTER v SET STORAGE main;
INSERT INTO type_storage (kind, v) SELECT 'compressed', array_fill(1, ARRAY[3000])::vector;
ALTER TABLE type_storage ALTER v SET STORAGE external;
SELECT kind, vector_dims(v), pg_column_size(v), pg_column_compression(v) FROM type_storage ORDER BY id;
SELECT kind, v <-> v AS l2, v = v AS eq, vector_norm(v) = vector_norm(v || '[0]'::vector) AS norm, (v::real[])[30], left(v::text, 8), length(v::text) FROM type_storage ORDER BY id;
SELECT kind, a.v = b.v AS same FROM type_storage a, LATERAL (SELECT vector(a.v, -1, false) AS v) b ORDER BY id;
CREATE TABLE type_storage_copy AS SELECT kind, v::vector(3000) FROM type_storage WHERE vector_dims(v) = 3000;
DROP TABLE type_storage;
SELECT kind, vector_dims(v), v <+> v AS l1 FROM type_storage_copy ORDER BY kind;
DROP TABLE type_storage_copy;

-- Nothing that a datum says of its own size is taken on trust.
CREATE CAST (bytea AS vector) WITHOUT FUNCTION;
CREATE FUNCTION raw(dim int2, unused int2, bytes int) RETURNS vector LANGUAGE sql AS $$
    SELECT (substr(int2send(dim), 2) || substr(int2send(dim), 1, 1) || int2send(unused) || decode(repeat('00', bytes), 'hex'))::vector
$$;
SELECT raw(2::int2, 0::int2, 8);
SELECT raw(3::int2, 0::int2, 8);
SELECT raw(1::int2, 0::int2, 8);
SELECT raw(0::int2, 0::int2, 0);
SELECT raw((-1)::int2, 0::int2, 8);
SELECT raw(2::int2, 0::int2, 7);
SELECT raw(16001::int2, 0::int2, 64004);
SELECT ''::bytea::vector;
SELECT '\x0100'::bytea::vector;
CREATE TABLE type_damaged (v vector);
INSERT INTO type_damaged VALUES (raw(3::int2, 0::int2, 8));
SELECT v <-> '[1,2]' FROM type_damaged;
\set VERBOSITY sqlstate
SELECT v FROM type_damaged;
\set VERBOSITY default
DROP TABLE type_damaged;
DROP FUNCTION raw;
DROP CAST (bytea AS vector);
