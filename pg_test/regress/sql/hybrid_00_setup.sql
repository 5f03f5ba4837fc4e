-- What the other hybrid tests share: made-up vectors, and searches by index and by table to compare.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS hybridvec;
RESET client_min_messages;

-- Plans that enable_seqscan = off makes costly are not worth compiling.
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET jit = off', current_database()); END $$;

-- When a worker comes is not the same twice.
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET hybrid.compaction_workers = 0', current_database()); END $$;
SET hybrid.compaction_workers = 0;

-- A vector that depends on the seed only, each value in -0.5 .. 0.5.
CREATE FUNCTION test_vector(seed bigint, dim integer) RETURNS vector
    IMMUTABLE STRICT PARALLEL SAFE LANGUAGE sql AS $$
    SELECT array_agg((hashint8extended(j, seed) & 65535) / 65535.0 - 0.5 ORDER BY j)::vector FROM generate_series(1, dim) j
$$;

-- The plan of a statement, without what only some versions of PostgreSQL show: a number of InitPlan, 'Disabled: true'.
CREATE FUNCTION test_plan(statement text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || statement LOOP
        IF line !~ '^ *Disabled: true$' THEN
            RETURN NEXT regexp_replace(line, ' \(returns \$\d+\)$', '');
        END IF;
    END LOOP;
END $$;

-- Runs a query of (id, distance) that must use an index.
CREATE FUNCTION test_by_index(query text, OUT ids integer[], OUT distances double precision[])
    LANGUAGE plpgsql SET enable_seqscan = off SET enable_sort = off AS $$
DECLARE
    line text;
    used boolean := false;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        used := used OR line ~ 'Index Scan using';
    END LOOP;
    IF NOT used THEN
        RAISE 'no index is used for: %', query;
    END IF;
    EXECUTE 'SELECT array_agg(id), array_agg(d) FROM (' || query || ') s(id, d)' INTO ids, distances;
END $$;

-- Runs a query of (id, distance) without any index.
CREATE FUNCTION test_by_table(query text, OUT ids integer[], OUT distances double precision[])
    LANGUAGE plpgsql SET enable_seqscan = on SET enable_indexscan = off SET enable_bitmapscan = off SET enable_indexonlyscan = off AS $$
BEGIN
    EXECUTE 'SELECT array_agg(id), array_agg(d) FROM (' || query || ') s(id, d)' INTO ids, distances;
END $$;

-- Searches a table (id, e) by both, for some queries: whether the index's rows come in order and each once, whether the
-- distances are the same as the table's, and which part of the nearest the index found.
CREATE FUNCTION test_compare(tbl text, op text, dim integer, k integer, queries integer DEFAULT 20, vec text DEFAULT 'e',
        OUT ordered boolean, OUT once boolean, OUT same boolean, OUT recall numeric)
    LANGUAGE plpgsql AS $$
DECLARE
    sql text;
    found record;
    exact record;
    hits integer := 0;
    wanted integer := 0;
BEGIN
    ordered := true; once := true; same := true;
    FOR i IN 1 .. queries LOOP
        sql := format('SELECT id, %s %s %L::vector FROM %s ORDER BY %1$s %2$s %3$L::vector LIMIT %5$s',
            vec, op, test_vector(-i, dim), tbl, k);
        found := test_by_index(sql);
        exact := test_by_table(sql);
        ordered := ordered AND found.distances = (SELECT array_agg(d ORDER BY d) FROM unnest(found.distances) d);
        once := once AND cardinality(found.ids) = (SELECT count(DISTINCT id) FROM unnest(found.ids) id);
        same := same AND found.distances = exact.distances;
        hits := hits + (SELECT count(*) FROM unnest(found.distances) d WHERE d <= exact.distances[cardinality(exact.distances)]);
        wanted := wanted + cardinality(exact.distances);
    END LOOP;
    recall := round(hits::numeric / wanted, 3);
END $$;

-- The SQLSTATE and message of a statement, or 'ok'. Names are those of a search path with `public`: from version 17 on
-- an index is created with another one.
CREATE FUNCTION test_error(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    detail text;
    hint text;
BEGIN
    EXECUTE statement;
    RETURN 'ok';
EXCEPTION WHEN OTHERS OR query_canceled THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN replace(SQLSTATE || ' ' || SQLERRM || coalesce(' | ' || nullif(detail, ''), '') || coalesce(' | ' || nullif(hint, ''), ''),
        'public.', '');
END $$;
