-- Looking after an index. EXECUTE is PUBLIC; the functions check rights on the table themselves.

CREATE FUNCTION hybrid_segments(index regclass)
    RETURNS TABLE (id bigint, kind text, state text, rows bigint, dead_rows bigint, lists integer, min_key text,
        max_key text, pages bigint, created timestamptz, exported timestamptz)
    STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_segments_wrapper';
COMMENT ON FUNCTION hybrid_segments(regclass) IS 'a row for each segment of a hybrid index';

CREATE FUNCTION hybrid_stats(index regclass)
    RETURNS TABLE (rows bigint, dead_rows bigint, elements bigint, unreachable bigint, dimensions integer, metric text,
        bytes_per_row double precision, recent_rows bigint, old_rows bigint, oldest_recent text, segments integer,
        pages bigint, free_pages bigint, simd text, options jsonb, built_with jsonb)
    STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_stats_wrapper';
COMMENT ON FUNCTION hybrid_stats(regclass) IS 'what a hybrid index holds, how well it is linked, and its options';

CREATE FUNCTION hybrid_check(index regclass, heap boolean DEFAULT false)
    RETURNS TABLE (block bigint, problem text)
    STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_check_wrapper';
COMMENT ON FUNCTION hybrid_check(regclass, boolean) IS 'a row for each fault of a hybrid index; none: it is sound';

CREATE FUNCTION hybrid_recall(index regclass, queries integer DEFAULT 100, k integer DEFAULT 10)
    RETURNS TABLE (recall double precision, index_mean_ms double precision, index_p99_ms double precision,
        exact_mean_ms double precision, exact_p99_ms double precision)
    STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_recall_wrapper';
COMMENT ON FUNCTION hybrid_recall(regclass, integer, integer) IS 'recall of searches against exact ones, and the time of both';

CREATE FUNCTION hybrid_page(index regclass, block bigint)
    RETURNS TABLE (kind text, segment bigint, slots_used integer, slots integer, next bigint)
    STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_page_wrapper';
COMMENT ON FUNCTION hybrid_page(regclass, bigint) IS 'what a page of a hybrid index is';

CREATE FUNCTION hybrid_needs_reindex()
    RETURNS TABLE (index regclass, format integer)
    LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_needs_reindex_wrapper';
COMMENT ON FUNCTION hybrid_needs_reindex() IS 'indexes whose format this library does not read';

CREATE FUNCTION hybrid_compact(index regclass)
    RETURNS TABLE (action text, segments_in bigint[], segment_out bigint, rows bigint, started timestamptz,
        duration interval)
    STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_compact_wrapper';
COMMENT ON FUNCTION hybrid_compact(regclass) IS 'does what compaction is due in a hybrid index; a row for each action';

CREATE FUNCTION hybrid_history(index regclass)
    RETURNS TABLE (action text, segments_in bigint[], segment_out bigint, rows bigint, started timestamptz,
        duration interval)
    STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_history_wrapper';
COMMENT ON FUNCTION hybrid_history(regclass) IS 'what compaction did in a hybrid index, oldest first; a row for each action';
