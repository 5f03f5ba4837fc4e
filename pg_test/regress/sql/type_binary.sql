-- Binary input and output: int16 dim, int16 0, float4 in network order.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS hybridvec;
RESET client_min_messages;

\set SHOW_CONTEXT never
CREATE TABLE received (v vector);

-- Passes bytes to the receive function, by way of COPY.
CREATE FUNCTION receive(message text) RETURNS SETOF vector LANGUAGE plpgsql AS $$
DECLARE
    body bytea := decode(replace(message, ' ', ''), 'hex');
    file bytea := '\x5047434f50590aff0d0a00'::bytea || int4send(0) || int4send(0) || int2send(1::int2)
        || int4send(length(body)) || body || int2send((-1)::int2);
    escaped text;
BEGIN
    SELECT string_agg('\' || byte / 64 || byte / 8 % 8 || byte % 8, '' ORDER BY at) INTO escaped
    FROM generate_series(0, length(file) - 1) at, LATERAL (SELECT get_byte(file, at) AS byte) b;
    TRUNCATE received;
    EXECUTE format('COPY received FROM PROGRAM %L (FORMAT binary)', 'printf ''' || escaped || '''');
    RETURN QUERY SELECT * FROM received;
END $$;

SELECT vector_send('[1,-2,0.5,-0]');
SELECT receive('0003 0000 3f800000 c0000000 3f000000');
SELECT receive(encode(vector_send(v), 'hex')) = v AS same
FROM (VALUES ('[1e-45,3.4028235e38,-1e-10]'::vector), ('[0]'), (array_fill(0.1, ARRAY[1000])::vector)) t(v);

-- The header.
SELECT receive('');
SELECT receive('0003 00');
SELECT receive('0000 0000');
SELECT receive('ffff 0000');
SELECT receive('3e81 0000');
SELECT receive('7fff 0000');
SELECT receive('0001 0001 3f800000');
SELECT receive('0001 ffff 3f800000');

-- The elements.
SELECT receive('0003 0000 3f800000 c0000000');
SELECT receive('0003 0000 3f800000 c0000000 3f0000');
SELECT receive('3e80 0000');
SELECT receive('0001 0000 3f800000 00');
SELECT receive('0002 0000 7fc00000 3f800000');
SELECT receive('0002 0000 3f800000 7f800000');
SELECT receive('0001 0000 ff800000');

-- The type modifier.
TRUNCATE received;
ALTER TABLE received ALTER v TYPE vector(2);
SELECT receive('0002 0000 3f800000 3f800000');
SELECT receive('0001 0000 3f800000');

DROP FUNCTION receive;
DROP TABLE received;
