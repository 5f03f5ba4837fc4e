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

CREATE FUNCTION hybrid_export(index regclass, server name, vectors boolean DEFAULT false)
    RETURNS TABLE (manifest text, objects bigint, bytes bigint, reused bigint, rows bigint, units bigint, cost bigint,
        coin text, expires_at timestamptz)
    STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_export_wrapper';
COMMENT ON FUNCTION hybrid_export(regclass, name, boolean) IS 'archives the structure of an index in a store';

CREATE FUNCTION hybrid_archive_cost(index regclass, server name)
    RETURNS TABLE (objects bigint, bytes bigint, units bigint, cost bigint, coin text, cost_singly bigint,
        saving double precision)
    STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_archive_cost_wrapper';
COMMENT ON FUNCTION hybrid_archive_cost(regclass, name) IS 'what an export would cost if the store had nothing of it';

CREATE FUNCTION hybrid_import(index regclass, server name, manifest text)
    RETURNS TABLE (linked bigint, inserted bigint, dropped bigint)
    STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_import_wrapper';
COMMENT ON FUNCTION hybrid_import(regclass, name, text) IS 'builds an index anew from an archive and the rows of its table';

CREATE FUNCTION hybrid_backup(tbl regclass, server name)
    RETURNS TABLE (manifest text, rows bigint, indexes integer, objects bigint, bytes bigint, reused bigint, units bigint,
        cost bigint, coin text, expires_at timestamptz, not_carried text[])
    STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_backup_wrapper';
COMMENT ON FUNCTION hybrid_backup(regclass, name) IS 'archives a table: description, rows, hybrid indexes';

CREATE FUNCTION hybrid_restore(server name, manifest text, target_schema name DEFAULT NULL, target_name name DEFAULT NULL)
    RETURNS TABLE (table_name text, rows bigint, indexes integer, linked bigint, inserted bigint, not_carried text[])
    CALLED ON NULL INPUT LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_restore_wrapper';
COMMENT ON FUNCTION hybrid_restore(name, text, name, name) IS 'makes a table from a backup';

CREATE FUNCTION hybrid_archive_list(server name)
    RETURNS TABLE (manifest text, kind text, source text, created_at timestamptz, rows bigint, objects bigint,
        bytes bigint, set_id text, ours boolean, recorded boolean, tags jsonb, expires_at timestamptz, problem text)
    STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_archive_list_wrapper';
COMMENT ON FUNCTION hybrid_archive_list(name) IS 'archives in a store, newest first';

CREATE FUNCTION hybrid_archive_verify(server name, manifest text)
    RETURNS TABLE (object text, locator text, bytes bigint, ok boolean, problem text)
    STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_archive_verify_wrapper';
COMMENT ON FUNCTION hybrid_archive_verify(name, text) IS 'fetches every object of an archive and checks it';

CREATE FUNCTION hybrid_archive_prune(server name, keep interval, keep_last integer DEFAULT 1)
    RETURNS TABLE (manifest text, removed boolean, reason text)
    STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'hybrid_archive_prune_wrapper';
COMMENT ON FUNCTION hybrid_archive_prune(name, interval, integer) IS 'removes old archives of ours from a store';
