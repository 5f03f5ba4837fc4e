-- Stores as foreign servers: options, rights, and what is said of mistakes.
CREATE SCHEMA hybrid_server;
SET search_path = hybrid_server, public;
CREATE ROLE hybrid_server_user;
CREATE ROLE hybrid_server_files;
CREATE ROLE hybrid_server_reader;
GRANT USAGE ON SCHEMA hybrid_server TO hybrid_server_user, hybrid_server_files, hybrid_server_reader;
GRANT USAGE ON FOREIGN DATA WRAPPER hybrid_store TO hybrid_server_user, hybrid_server_files, hybrid_server_reader;
GRANT pg_read_server_files, pg_write_server_files TO hybrid_server_files;
GRANT pg_read_server_files TO hybrid_server_reader;
-- SQLSTATE, message, detail and hint of a statement that fails; 'done' of one that does not, which is then undone.
CREATE FUNCTION try(statement text) RETURNS TABLE (state text, message text, more text) LANGUAGE plpgsql AS $$
DECLARE
    detail text;
    hint text;
BEGIN
    EXECUTE statement;
    RAISE EXCEPTION 'undone' USING ERRCODE = 'ZZZZZ';
EXCEPTION
    WHEN SQLSTATE 'ZZZZZ' THEN state = 'done'; RETURN NEXT;
    WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
        state = SQLSTATE; message = SQLERRM; more = concat_ws(' ', nullif(detail, ''), nullif(hint, ''));
        RETURN NEXT;
END $$;
CREATE FUNCTION try_server(options text) RETURNS TABLE (state text, message text, more text) LANGUAGE sql AS
    $$ SELECT * FROM try('CREATE SERVER tried FOREIGN DATA WRAPPER hybrid_store' || coalesce(' OPTIONS (' || options || ')', '')) $$;
\x on

-- What a server may be.
SELECT o AS options, t.* FROM unnest(ARRAY[
    NULL, 'path ''/srv/attic''', 'type ''''', 'type ''ftp''', 'type ''directory''', 'type ''directory'', path ''/srv/attic''',
    'type ''directory'', path ''attic''', 'type ''directory'', path ''/srv/../attic''', 'type ''directory'', path ''''',
    'type ''directory'', paht ''/srv/attic''', 'type ''directory'', path ''/srv/attic'', publisher ''https://p.example.org''',
    'type ''directory'', path ''/srv/attic'', nonsense ''1''', 'type ''directory'', path ''/srv/attic'', "Path" ''/srv''',
    'type ''walrus''', 'type ''walrus'', aggregator ''https://a.example.org''',
    'type ''walrus'', aggregator ''https://a.example.org'', publisher ''https://p.example.org'', epochs ''5'', permanent ''true''',
    'type ''walrus'', aggregator ''https://a.example.org'', epochs ''0''', 'type ''walrus'', aggregator ''https://a.example.org'', epochs ''many''',
    'type ''walrus'', aggregator ''https://a.example.org'', permanent ''maybe''',
    'type ''walrus'', aggregator ''ftp://a.example.org''', 'type ''walrus'', aggregator ''http://a.example.org''',
    'type ''walrus'', aggregator ''http://127.0.0.1:31415''',
    'type ''s5'', url ''http://localhost:5522'', api ''path'', prefix ''home/hybridvec''',
    'type ''s5'', url ''http://localhost:5522'', api ''portal''', 'type ''s5'', url ''http://localhost:5522'', api ''rest''',
    'type ''s5'', url ''http://localhost:5522'', prefix ''../etc''']) o, try_server(o) t;

-- Server options can be read by everybody: no secrets, no credentials.
SELECT o AS options, t.* FROM unnest(ARRAY[
    'type ''walrus'', aggregator ''https://a.example.org'', jwt_secret ''hush''',
    'type ''s5'', url ''http://localhost:5522'', token ''hush''', 'type ''directory'', path ''/srv/attic'', key ''hush''',
    'type ''s5'', url ''https://me:hush@s5.example.org''', 'type ''walrus'', aggregator ''https://hush@a.example.org''',
    'type ''s5'', url ''https://s5.example.org?auth_token=hush''']) o, try_server(o) t;

-- A user mapping.
CREATE SERVER s FOREIGN DATA WRAPPER hybrid_store OPTIONS (type 's5', url 'http://127.0.0.1:1', api 'path');
SELECT o AS options, t.* FROM unnest(ARRAY[
    'token ''hush''', 'token ''''', 'tokn ''hush''', 'url ''https://s5.example.org''', 'key ''hush''',
    'key ''00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff''', 'key_file ''/srv/key''', 'key_file ''key''',
    'token ''hush'', token_file ''/srv/token''']) o,
    try('CREATE USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (' || o || ')') t;

-- ALTER is checked as CREATE is.
SELECT o AS options, t.* FROM unnest(ARRAY[
    'SET api ''portal''', 'SET api ''rest''', 'DROP url', 'ADD token ''hush''', 'SET type ''directory''']) o,
    try('ALTER SERVER s OPTIONS (' || o || ')') t;

-- The wrapper has no options, and no foreign tables.
SELECT t.* FROM try('ALTER FOREIGN DATA WRAPPER hybrid_store OPTIONS (ADD type ''directory'')') t;
SELECT t.* FROM try('CREATE FOREIGN TABLE f (id int) SERVER s') t;
SELECT t.* FROM try('CREATE FOREIGN TABLE f (id int OPTIONS (a ''b'')) SERVER s OPTIONS (a ''b'')') t;
SELECT t.* FROM try('IMPORT FOREIGN SCHEMA f FROM SERVER s INTO hybrid_server') t;

-- Files of the server are for those who may read and write them.
SET ROLE hybrid_server_user;
SELECT t.* FROM try_server($$type 'directory', path '/srv/attic'$$) t;
SELECT t.* FROM try_server($$type 's5', url 'https://s5.example.org', ca_file '/etc/ca.pem'$$) t;
SELECT t.* FROM try_server($$type 's5', url 'https://s5.example.org'$$) t;
SET ROLE hybrid_server_reader;
SELECT t.* FROM try_server($$type 'directory', path '/srv/attic'$$) t;
SELECT t.* FROM try_server($$type 's5', url 'https://s5.example.org', ca_file '/etc/ca.pem'$$) t;
SET ROLE hybrid_server_files;
SELECT t.* FROM try_server($$type 'directory', path '/srv/attic'$$) t;
RESET ROLE;
-- Who has USAGE may make a mapping of his own, but read no files by it; nor may the owner of a server turn it into a directory.
GRANT USAGE ON FOREIGN SERVER s TO hybrid_server_user, hybrid_server_reader;
SET ROLE hybrid_server_user;
SELECT t.* FROM try($$CREATE USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (token 'hush')$$) t;
SELECT t.* FROM try($$CREATE USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (token_file '/etc/passwd')$$) t;
SET ROLE hybrid_server_reader;
SELECT t.* FROM try($$CREATE USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (token_file '/etc/passwd')$$) t;
RESET ROLE;
CREATE SERVER d FOREIGN DATA WRAPPER hybrid_store OPTIONS (type 'directory', path '/nowhere/attic');
ALTER SERVER d OWNER TO hybrid_server_user;
SET ROLE hybrid_server_user;
SELECT t.* FROM try($$ALTER SERVER d OPTIONS (SET path '/etc')$$) t;
SELECT t.* FROM try($$ALTER SERVER d OPTIONS (ADD cache 'false')$$) t;
RESET ROLE;

-- Which servers may be used, and by whom.
CREATE FOREIGN DATA WRAPPER hybrid_server_other;
CREATE SERVER other FOREIGN DATA WRAPPER hybrid_server_other;
SELECT t.* FROM try('SELECT hybrid_server_check(''nobody'')') t;
SELECT t.* FROM try('SELECT hybrid_server_check(''other'')') t;
SELECT count(*) FROM hybrid_server_check(NULL);
SET ROLE hybrid_server_user;
SELECT t.* FROM try('SELECT hybrid_server_check(''other'')') t;
RESET ROLE;
SET ROLE hybrid_server_files;
SELECT t.* FROM try('SELECT hybrid_server_check(''s'')') t;
SELECT t.* FROM try('SELECT hybrid_server_check(''d'')') t;
RESET ROLE;
-- Nobody listens there; no such directory.
SELECT reachable, latency_ms, version FROM hybrid_server_check('d');
SET ROLE hybrid_server_user;
SELECT reachable, latency_ms, version FROM hybrid_server_check('s');
RESET ROLE;
-- Options that do not go together show when a store is used.
ALTER SERVER s OPTIONS (ADD encrypt 'true');
SELECT t.* FROM try('SELECT hybrid_server_check(''s'')') t;
-- A file of secrets that is not there, is none, or is too long.
CREATE USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (key_file '/nowhere/key');
SELECT t.* FROM try('SELECT hybrid_server_check(''s'')') t;
ALTER USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (SET key_file '/tmp');
SELECT t.* FROM try('SELECT hybrid_server_check(''s'')') t;
ALTER USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (SET key_file '/dev/zero');
SELECT t.* FROM try('SELECT hybrid_server_check(''s'')') t;
ALTER USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (SET key_file '/dev/null');
SELECT t.* FROM try('SELECT hybrid_server_check(''s'')') t;
-- The function that is not strict.
SELECT t.* FROM try('SELECT hybrid_restore(NULL, ''x'')') t;
SELECT t.* FROM try('SELECT hybrid_restore(''s'', NULL)') t;
\x off

-- The tables: everybody reads, nobody but the functions writes.
SELECT array_agg(extconfig.relname ORDER BY 1) FROM pg_extension e, LATERAL (SELECT relname FROM pg_class WHERE oid = ANY (e.extconfig)) extconfig
    WHERE extname = 'hybridvec';
SET ROLE hybrid_server_user;
SELECT count(*) FROM hybrid_archives;
SELECT count(*) FROM hybrid_archive_sets;
SELECT t.state FROM try('INSERT INTO hybrid_archive_sets VALUES (repeat(''0'', 32), ''1'', 1)') t;
SELECT t.state FROM try('DELETE FROM hybrid_archives') t;
SELECT t.* FROM try('SELECT hybrid_archive_adopt(repeat(''0'', 32))') t;
RESET ROLE;
SELECT t.* FROM try('SELECT hybrid_archive_adopt(''nonsense'')') t;
SELECT hybrid_archive_adopt(repeat('0', 32));
SELECT hybrid_archive_adopt(repeat('0', 32));
SELECT set_id, system_identifier = (SELECT system_identifier::text FROM pg_control_system()) AS this_system,
    timeline, adopted_at <= now() AS adopted FROM hybrid_archive_sets;
DELETE FROM hybrid_archive_sets;
-- Its name, not what is found first on somebody's path.
CREATE TABLE hybrid_archive_sets (LIKE public.hybrid_archive_sets);
CREATE FUNCTION hybrid_server.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT 'epoch'::timestamptz $$;
BEGIN;
SET LOCAL search_path = hybrid_server, pg_catalog, public;
SELECT hybrid_archive_adopt(repeat('1', 32));
SELECT count(*) FROM hybrid_server.hybrid_archive_sets;
SELECT adopted_at = pg_catalog.now() AS now FROM public.hybrid_archive_sets;
SHOW search_path;
SELECT current_user = session_user AS same_user;
ROLLBACK;

-- Settings and the index option.
SHOW hybrid.import_from;
SET hybrid.import_from = 'attic';
SET hybrid.import_from = 'attic manifest-0.cbor';
SET hybrid.import_from = '"my attic" manifest-0.cbor';
SET hybrid.import_from = 'one two three';
SHOW hybrid.import_from;
RESET hybrid.import_from;
SHOW hybrid.archive_cache_size;
SET hybrid.archive_cache_size = 0;
CREATE TABLE t (id int, e vector(3));
SELECT test_error(format('CREATE INDEX ON t USING hybrid (e) WITH (source = %L)', source)) FROM unnest(ARRAY['', 'attic', 'a b c', '"a b']) source;

SET client_min_messages = warning;
DROP SERVER s, d, other CASCADE;
DROP FOREIGN DATA WRAPPER hybrid_server_other;
DROP SCHEMA hybrid_server CASCADE;
REVOKE ALL ON FOREIGN DATA WRAPPER hybrid_store FROM hybrid_server_user, hybrid_server_files, hybrid_server_reader;
DROP ROLE hybrid_server_user, hybrid_server_files, hybrid_server_reader;
