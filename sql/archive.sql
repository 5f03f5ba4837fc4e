-- Stores of archives, and what was put there. EXECUTE is PUBLIC; the functions check rights themselves: USAGE on the server.

CREATE FUNCTION hybrid_store_validator(options text[], catalog oid) RETURNS void
    STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_store_validator_wrapper';

CREATE FOREIGN DATA WRAPPER hybrid_store VALIDATOR hybrid_store_validator;
COMMENT ON FOREIGN DATA WRAPPER hybrid_store IS 'a server of this wrapper is a store of archives of hybrid indexes';

CREATE FUNCTION hybrid_server_check(server name)
    RETURNS TABLE (reachable boolean, latency_ms double precision, version text, steps text[])
    STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_server_check_wrapper';
COMMENT ON FUNCTION hybrid_server_check(name) IS 'tries a store with a small object';

-- Written by the functions alone, whoever calls them, as the owner of the table. No OIDs: they change in dump and upgrade.
CREATE TABLE hybrid_archives (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    server text NOT NULL,
    manifest text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('export', 'backup')),
    set_id text NOT NULL,
    system_identifier text NOT NULL,
    timeline bigint NOT NULL,
    database text NOT NULL,
    table_schema text NOT NULL,
    table_name text NOT NULL,
    index_name text,
    definition_hash text NOT NULL,
    created_at timestamptz NOT NULL,
    rows bigint NOT NULL,
    objects bigint NOT NULL,
    bytes bigint NOT NULL,
    reused bigint NOT NULL,
    units bigint,
    cost bigint,
    coin text,
    expires_epoch bigint,
    expires_at timestamptz,
    tags jsonb NOT NULL DEFAULT '{}',
    UNIQUE (server, manifest)
);
COMMENT ON TABLE hybrid_archives IS 'archives that this database has put into stores';
GRANT SELECT ON hybrid_archives TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('hybrid_archives', '');

CREATE TABLE hybrid_archive_sets (
    set_id text NOT NULL CHECK (set_id ~ '^[0-9a-f]{32}$'),
    system_identifier text NOT NULL,
    timeline bigint NOT NULL,
    adopted_at timestamptz,
    PRIMARY KEY (set_id, system_identifier, timeline)
);
COMMENT ON TABLE hybrid_archive_sets IS 'sets of archives that a system, on a timeline, has begun or adopted';
GRANT SELECT ON hybrid_archive_sets TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('hybrid_archive_sets', '');

CREATE FUNCTION hybrid_archive_adopt(set text) RETURNS void
    STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_archive_adopt_wrapper';
COMMENT ON FUNCTION hybrid_archive_adopt(text) IS 'lets this system remove archives of a set that another one, or it on another timeline, began';
