-- The access method and its operator classes.

CREATE FUNCTION hybrid_handler(internal) RETURNS index_am_handler
    LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_handler_wrapper';

CREATE FUNCTION hybrid_metric_l2() RETURNS integer
    IMMUTABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_metric_l2_wrapper';

CREATE FUNCTION hybrid_metric_ip() RETURNS integer
    IMMUTABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_metric_ip_wrapper';

CREATE FUNCTION hybrid_metric_cosine() RETURNS integer
    IMMUTABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_metric_cosine_wrapper';

CREATE FUNCTION hybrid_metric_l1() RETURNS integer
    IMMUTABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_metric_l1_wrapper';

CREATE ACCESS METHOD hybrid TYPE INDEX HANDLER hybrid_handler;

COMMENT ON ACCESS METHOD hybrid IS 'vector index: recent rows in HNSW, old rows in IVF partitions';

CREATE OPERATOR CLASS vector_l2_ops DEFAULT FOR TYPE vector USING hybrid AS
    OPERATOR 1 <-> (vector, vector) FOR ORDER BY float_ops,
    FUNCTION 1 hybrid_metric_l2();

CREATE OPERATOR CLASS vector_ip_ops FOR TYPE vector USING hybrid AS
    OPERATOR 1 <#> (vector, vector) FOR ORDER BY float_ops,
    FUNCTION 1 hybrid_metric_ip();

CREATE OPERATOR CLASS vector_cosine_ops FOR TYPE vector USING hybrid AS
    OPERATOR 1 <=> (vector, vector) FOR ORDER BY float_ops,
    FUNCTION 1 hybrid_metric_cosine();

CREATE OPERATOR CLASS vector_l1_ops FOR TYPE vector USING hybrid AS
    OPERATOR 1 <+> (vector, vector) FOR ORDER BY float_ops,
    FUNCTION 1 hybrid_metric_l1();
