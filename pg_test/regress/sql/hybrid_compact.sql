-- Compaction by hand, its history, settings, rights. No worker: hybrid_00_setup.
CREATE SCHEMA hybrid_compact;
SET search_path = hybrid_compact, public;
CREATE TABLE t (id integer, e vector(4));
CREATE INDEX i ON t USING hybrid (e) WITH (pending_rows = 100, recent_threshold = 'infinity', segment_rows = 1000);
SELECT * FROM hybrid_compact('i');
SELECT * FROM hybrid_history('i');

-- Rows wait in the pending list until there are pending_rows of them.
INSERT INTO t SELECT n, test_vector(n, 4) FROM generate_series(1, 90) n;
SELECT kind, state, rows FROM hybrid_segments('i') ORDER BY id;
SELECT * FROM hybrid_compact('i');
INSERT INTO t SELECT n, test_vector(n, 4) FROM generate_series(91, 150) n;
SELECT action, segment_out, rows, started <= now() + interval '1 hour' AS started, duration >= '0' AS took FROM hybrid_compact('i');
SELECT kind, state, rows FROM hybrid_segments('i') WHERE rows > 0;
SELECT action, rows FROM hybrid_history('i');
SELECT ordered, once, same FROM test_compare('t', '<->', 4, 100);
SELECT * FROM hybrid_check('i', true);
-- A later transaction, and VACUUM gives the pages of the list up.
SELECT txid_current() > 0 AS ok;
VACUUM t;
SELECT free_pages > 0 AS free FROM hybrid_stats('i');
SELECT action FROM hybrid_history('i') ORDER BY started DESC LIMIT 1;

-- Without a worker VACUUM does a step, ANALYZE none, and neither where auto_compact is off.
INSERT INTO t SELECT n, test_vector(n, 4) FROM generate_series(151, 300) n;
ANALYZE t;
SELECT sum(rows) FROM hybrid_segments('i') WHERE kind = 'pending';
ALTER INDEX i SET (auto_compact = off);
VACUUM t;
SELECT sum(rows) FROM hybrid_segments('i') WHERE kind = 'pending';
ALTER INDEX i RESET (auto_compact);
VACUUM t;
SELECT sum(rows) FROM hybrid_segments('i') WHERE kind = 'pending';

-- Everything in lists, and an index built over it all.
CREATE INDEX l ON t USING hybrid (e) WITH (pending_rows = 100, recent_rows = 0);
INSERT INTO t SELECT n, test_vector(n, 4) FROM generate_series(301, 600) n;
SELECT count(*) > 0 AS did FROM hybrid_compact('l');
SELECT kind, sum(rows) FROM hybrid_segments('l') WHERE rows > 0 GROUP BY kind ORDER BY kind;
SELECT * FROM hybrid_check('l', true);
DROP INDEX l;

-- In a transaction that is rolled back the rows are moved all the same, and are not to be seen.
BEGIN;
INSERT INTO t SELECT n, test_vector(n, 4) FROM generate_series(1001, 1200) n;
SELECT count(*) > 0 AS did FROM hybrid_compact('i');
ROLLBACK;
SELECT ordered, once, same FROM test_compare('t', '<->', 4, 100);
SELECT * FROM hybrid_check('i', true);

-- A temporary index.
CREATE TEMPORARY TABLE tmp (id integer, e vector(4));
CREATE INDEX tmp_i ON tmp USING hybrid (e) WITH (pending_rows = 100, recent_threshold = 'infinity');
INSERT INTO tmp SELECT n, test_vector(n, 4) FROM generate_series(1, 200) n;
SELECT action, rows FROM hybrid_compact('tmp_i');
SELECT * FROM hybrid_check('tmp_i', true);

-- What is not a hybrid index, or not ready.
CREATE TABLE p (id integer, e vector(4)) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE INDEX p_i ON p USING hybrid (e);
CREATE INDEX b ON t (id);
SELECT call, test_error('SELECT ' || call) FROM unnest(ARRAY['hybrid_compact(''p_i'')', 'hybrid_compact(''b'')', 'hybrid_compact(''t'')',
    'hybrid_history(''p_i'')', 'hybrid_history(''b'')', 'hybrid_compact(NULL)']) call;

-- Rights: the owner compacts; who may read the table or watches the server sees the history.
CREATE ROLE hybrid_compact_owner;
CREATE ROLE hybrid_compact_reader;
CREATE ROLE hybrid_compact_nobody;
CREATE ROLE hybrid_compact_monitor IN ROLE pg_monitor;
GRANT USAGE ON SCHEMA hybrid_compact TO PUBLIC;
ALTER TABLE t OWNER TO hybrid_compact_owner;
GRANT SELECT ON t TO hybrid_compact_reader;
CREATE TABLE tried (who text, compact text, history text);
GRANT INSERT ON tried TO PUBLIC;
DO $$ DECLARE who text; BEGIN
    FOREACH who IN ARRAY ARRAY['owner', 'reader', 'nobody', 'monitor'] LOOP
        EXECUTE 'SET ROLE hybrid_compact_' || who;
        INSERT INTO tried VALUES (who, test_error('SELECT * FROM hybrid_compact(''i'')'), test_error('SELECT * FROM hybrid_history(''i'')'));
        RESET ROLE;
    END LOOP;
END $$;
SELECT * FROM tried;
SET ROLE hybrid_compact_nobody;
SELECT test_error(statement) FROM unnest(ARRAY['SET hybrid.compaction_workers = 0', 'SET hybrid.quiet_hours = ''''',
    'SET hybrid.log_compaction_min_duration = 0']) statement;
RESET ROLE;

-- Settings.
SELECT name, boot_val, min_val, max_val, unit, context FROM pg_settings
WHERE name ~ '^hybrid.(compaction_workers|quiet_hours|log_compaction)' ORDER BY name;
SELECT value, test_error(format('SET hybrid.quiet_hours = %L', value)) FROM unnest(ARRAY[
    '', ' ', '22:00-06:00', '0:00 - 24:00', '22-6', '22:00', '25:00-06:00', '22:60-06:00', 'night', '22:00-06:00-07:00']) value;
SET hybrid.quiet_hours = 'soon';
-- From version 17 on the range, too, has units.
SELECT regexp_replace(test_error(statement), ' ms\M', '', 'g') FROM unnest(ARRAY['SET hybrid.compaction_workers = 64', 'SET hybrid.compaction_workers = 65',
    'SET hybrid.compaction_workers = -1', 'SET hybrid.log_compaction_min_duration = -2',
    'SET hybrid.log_compaction_min_duration = ''1min''']) statement;
RESET ALL;

DROP SCHEMA hybrid_compact CASCADE;
DROP ROLE hybrid_compact_owner, hybrid_compact_reader, hybrid_compact_nobody, hybrid_compact_monitor;
