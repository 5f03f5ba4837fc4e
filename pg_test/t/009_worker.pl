# The compaction worker: it starts by itself, moves rows, makes way for DDL, VACUUM and DROP DATABASE, and ends. Without
# one (no slot, switched off) VACUUM does its work.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use HybridVec;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

my $node = new_node('worker', conf => "hybrid.log_compaction_min_duration = 0\nmax_wal_size = 2GB\nmax_worker_processes = 4\n");
my $db = 'postgres';

sub rows_in
{
	my ($index, $kind, $database) = @_;
	return $node->safe_psql($database // $db, "SELECT coalesce(sum(rows), 0) FROM hybrid_segments('$index') WHERE kind = '$kind'");
}

sub seconds
{
	my ($work) = @_;
	my $start = time();
	$work->();
	return time() - $start;
}

sub wait_for_worker
{
	my ($database, $label) = @_;
	ok(wait_until(sub { workers($node, $database) }, 20), "$label: a worker runs");
}

# It comes by itself, for an owner who may do little, and leaves nothing to do.
$node->safe_psql($db, <<'SQL');
CREATE ROLE plain LOGIN;
CREATE TABLE t (id bigserial PRIMARY KEY, e vector(16));
CREATE INDEX t_e_idx ON t USING hybrid (e) WITH (pending_rows = 500, recent_threshold = 'infinity', segment_rows = 1000);
ALTER TABLE t OWNER TO plain;
INSERT INTO t (e) SELECT vec(n) FROM generate_series(1, 400) n;
SQL
usleep(500_000);
is(join(' ', workers($node, $db)), '', 'no worker while nothing is due');
is(rows_in('t_e_idx', 'pending'), 400, 'rows wait in the pending list');
$node->safe_psql($db, 'INSERT INTO t (e) SELECT vec(n) FROM generate_series(401, 700) n');
wait_for_worker($db, 'after inserts');
ok(wait_until(sub { rows_in('t_e_idx', 'pending') == 0 }, 20), 'the pending list is empty after a while');
is(rows_in('t_e_idx', 'hnsw'), 700, 'its rows are in the graph');
is($node->safe_psql($db, "SELECT action, sum(rows) FROM hybrid_history('t_e_idx') WHERE action = 'flush' GROUP BY 1"),
	'flush|700', 'the history tells');
sound($node, 't_e_idx', 'after the flush');
same_rows($node, 't', 'after the flush');

# What a transaction rolls back asks for nobody, what it commits is seen by the worker that is there.
my ($worker) = workers($node, $db);
$node->safe_psql($db, 'INSERT INTO t (e) SELECT vec(n) FROM generate_series(1001, 4000) n');
ok(wait_until(sub { rows_in('t_e_idx', 'pending') < 500 }, 30), 'the same worker goes on');
is(join(' ', workers($node, $db)), $worker, 'there is one worker');
is($node->safe_psql($db, "SELECT usename FROM pg_stat_activity WHERE pid = $worker"),
	$node->safe_psql($db, 'SELECT current_user'), 'it is connected as the bootstrap superuser');

# SIGTERM ends it at once; the next insert brings another.
$node->safe_psql($db, "SELECT pg_terminate_backend($worker)");
ok(wait_until(sub { !workers($node, $db) }, 5), 'pg_terminate_backend ends the worker');
$node->safe_psql($db, 'INSERT INTO t (e) SELECT vec(n) FROM generate_series(5001, 6000) n');
wait_for_worker($db, 'after it was terminated');
ok(wait_until(sub { rows_in('t_e_idx', 'pending') < 500 }, 30), 'the new worker does the work');
same_rows($node, 't', 'after two workers');

# auto_compact = off: nobody but hybrid_compact.
$node->safe_psql($db, <<'SQL');
CREATE TABLE off (id bigserial PRIMARY KEY, e vector(16));
CREATE INDEX off_e_idx ON off USING hybrid (e) WITH (pending_rows = 500, recent_threshold = 'infinity', auto_compact = off);
INSERT INTO off (e) SELECT vec(n) FROM generate_series(1, 1500) n;
DELETE FROM off WHERE id % 100 = 0;
VACUUM off;
SQL
usleep(1_500_000);
cmp_ok(rows_in('off_e_idx', 'pending'), '>', 1000, 'auto_compact = off: rows stay where they are');
like($node->safe_psql($db, "SELECT action FROM hybrid_compact('off_e_idx')"), qr/^flush/, 'hybrid_compact moves them');
is(rows_in('off_e_idx', 'pending'), 0, 'all of them');
same_rows($node, 'off', 'after hybrid_compact');

# Rows grow old where nobody inserts any more: a search asks for a worker.
$node->safe_psql($db, 'CREATE DATABASE quiet TEMPLATE template0');
$node->safe_psql('quiet', $HybridVec::FUNCTIONS);
$node->safe_psql('quiet', <<'SQL');
CREATE TABLE t (id bigserial PRIMARY KEY, e vector(16), at timestamptz);
CREATE INDEX t_e_idx ON t USING hybrid (e, at)
    WITH (recent_threshold = '10 days', pending_rows = 500, segment_rows = 1000, auto_compact = off);
INSERT INTO t (e, at) SELECT vec(n), now() - interval '10 days' + interval '15 seconds' FROM generate_series(1, 1000) n;
SELECT hybrid_compact('t_e_idx');
ALTER INDEX t_e_idx SET (auto_compact = on);
SQL
is(rows_in('t_e_idx', 'hnsw', 'quiet'), 1000, 'rows that are recent are in a graph');
my $search = "SET enable_seqscan = off; SELECT count(*) FROM (SELECT FROM t ORDER BY e <-> vec(7) LIMIT 10) s";
is($node->safe_psql('quiet', $search), 10, 'a search while all rows are recent');
is(join(' ', workers($node, 'quiet')), '', 'asks for nobody');
ok(wait_until(sub { $node->safe_psql('quiet', "SELECT now() > max(at) + interval '10 days' FROM t") eq 't' }, 60), 'time passes');
is(rows_in('t_e_idx', 'hnsw', 'quiet'), 1000, 'and nobody moves them');
is($node->safe_psql('quiet', $search), 10, 'the first search of a session that finds them old');
ok(wait_until(sub { rows_in('t_e_idx', 'ivf', 'quiet') == 1000 }, 20), 'has them moved');
is($node->safe_psql('quiet', "SELECT count(*) FROM hybrid_check('t_e_idx', true)"), 0, 'and the index is sound');

# A step that takes long, and what others want meanwhile: 20,000 rows of 96 dimensions are linked in some seconds.
sub busy
{
	my ($label) = @_;
	$node->safe_psql($db, 'DROP TABLE IF EXISTS big');
	$node->safe_psql($db, <<'SQL');
CREATE TABLE big (id bigserial PRIMARY KEY, e vector(96));
CREATE INDEX big_e_idx ON big USING hybrid (e) WITH (pending_rows = 4000, recent_threshold = 'infinity', ef_construction = 400,
    auto_compact = off);
INSERT INTO big (e) SELECT a.e + b.e FROM (SELECT vec(n, 96) AS e FROM generate_series(1, 200) n) a,
    (SELECT vec(n, 96) AS e FROM generate_series(201, 300) n) b;
ALTER INDEX big_e_idx SET (auto_compact = on);
INSERT INTO big (e) VALUES (vec(0, 96));
SQL
	return ok( wait_until(
			sub { $node->safe_psql($db, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'hybridvec: flush%big_e_idx%'") },
			60),
		"$label: a worker is busy");
}
for my $case (
	[ 'ALTER TABLE', 'ALTER TABLE big ADD COLUMN more int' ],
	[ 'CREATE INDEX', 'CREATE INDEX ON big (id)' ],
	[ 'REINDEX', 'REINDEX INDEX big_e_idx', 60 ],
	[ 'TRUNCATE', 'TRUNCATE big' ],
	[ 'DROP INDEX', 'DROP INDEX big_e_idx' ])
{
	my ($label, $sql, $limit) = @$case;
	busy($label);
	my $took = seconds(sub { $node->safe_psql($db, $sql) });
	cmp_ok($took, '<', $limit // 2, sprintf '%s waits %.1f s', $label, $took);
	next if $label eq 'DROP INDEX';
	sound($node, 'big_e_idx', $label);
}
busy('VACUUM');
$node->safe_psql($db, 'DELETE FROM big WHERE id % 10 = 0');
my $took = seconds(sub { $node->safe_psql($db, 'VACUUM big') });
cmp_ok($took, '<', 20, sprintf 'VACUUM waits %.1f s', $took);
sound($node, 'big_e_idx', 'VACUUM');
ok(wait_until(sub { rows_in('big_e_idx', 'pending') < 4000 }, 120), 'the step is done in the end');
sound($node, 'big_e_idx', 'VACUUM and the flush');

# DROP DATABASE, CREATE DATABASE from a template: neither idle nor busy workers are in the way for long.
for my $busy (0, 1)
{
	my $label = $busy ? 'busy worker' : 'idle worker';
	my $rows = $busy ? 30000 : 3000;
	$node->safe_psql($db, 'CREATE DATABASE other');
	$node->safe_psql('other', <<"SQL");
CREATE EXTENSION hybridvec;
CREATE TABLE t (id bigserial, e vector(16));
CREATE INDEX t_e_idx ON t USING hybrid (e) WITH (pending_rows = 2000, recent_threshold = 'infinity', ef_construction = 1000);
INSERT INTO t (e) SELECT array_agg(random())::vector FROM generate_series(1, 16 * $rows) i GROUP BY i % $rows;
SQL
	wait_for_worker('other', $label);
	ok(wait_until(sub { rows_in('t_e_idx', 'pending', 'other') < 2000 }, 20), 'the worker is idle') unless $busy;
	$took = seconds(sub { $node->safe_psql($db, 'CREATE DATABASE another TEMPLATE other') });
	cmp_ok($took, '<', 5, sprintf '%s: CREATE DATABASE takes %.1f s', $label, $took);
	$node->safe_psql('other', 'INSERT INTO t (e) SELECT array_agg(random())::vector FROM generate_series(1, 16 * 3000) i GROUP BY i % 3000');
	wait_for_worker('other', "$label, again");
	$took = seconds(sub { $node->safe_psql($db, 'DROP DATABASE other') });
	cmp_ok($took, '<', 5, sprintf '%s: DROP DATABASE takes %.1f s', $label, $took);
	sound_in('another', $label);
	$node->safe_psql($db, 'DROP DATABASE another');
}

sub sound_in
{
	my ($database, $label) = @_;
	is($node->safe_psql($database, "SELECT * FROM hybrid_check('t_e_idx', true) LIMIT 5"), '', "$label: the copy is sound");
}

# A worker that meets a damaged index says so, and looks after the others.
$node->safe_psql($db, <<'SQL');
CREATE TABLE bad (id bigserial PRIMARY KEY, e vector(16));
CREATE INDEX bad_e_idx ON bad USING hybrid (e) WITH (pending_rows = 500, recent_threshold = 'infinity');
INSERT INTO bad (e) SELECT vec(n) FROM generate_series(1, 400) n;
SQL
my $file = $node->data_dir . '/' . $node->safe_psql($db, "SELECT pg_relation_filepath('bad_e_idx')");
my $elements = $node->safe_psql($db, <<'SQL');
SELECT min(b) FROM generate_series(0, pg_relation_size('bad_e_idx') / 8192 - 1) b, hybrid_page('bad_e_idx', b) WHERE kind = 'element'
SQL
$node->stop;
open my $handle, '+<', $file or die;
seek $handle, $elements * 8192, 0;
print $handle "\0" x 8192;
close $handle;
$node->start;
$node->safe_psql($db, 'INSERT INTO bad (e) SELECT vec(n) FROM generate_series(401, 700) n');
ok(wait_until(sub { slurp_file($node->logfile) =~ /hybridvec compaction: index "bad_e_idx" is damaged/ }, 20), 'the damage is logged');
$node->safe_psql($db, 'INSERT INTO t (e) SELECT vec(n) FROM generate_series(7001, 8000) n');
ok(wait_until(sub { rows_in('t_e_idx', 'pending') < 500 }, 30), 'another index is looked after');
$node->safe_psql($db, 'DROP TABLE bad');

# No worker to be had: VACUUM does a step each time, and nothing is lost.
for my $case ([ 'hybrid.compaction_workers', 0 ], [ 'max_worker_processes', 0 ])
{
	my ($name, $value) = @$case;
	$node->append_conf('postgresql.conf', "hybrid.compaction_workers = 1\n$name = $value\n");
	$node->restart;
	$node->safe_psql($db, 'DROP TABLE IF EXISTS n');
	$node->safe_psql($db, <<'SQL');
CREATE TABLE n (id bigserial PRIMARY KEY, e vector(16));
CREATE INDEX n_e_idx ON n USING hybrid (e) WITH (pending_rows = 500, recent_threshold = 'infinity');
INSERT INTO n (e) SELECT vec(n) FROM generate_series(1, 1200) n;
SQL
	usleep(1_000_000);
	is(join(' ', workers($node, $db)), '', "$name = $value: no worker");
	is(rows_in('n_e_idx', 'pending'), 1200, "$name = $value: rows wait");
	$node->safe_psql($db, 'ANALYZE n');
	is(rows_in('n_e_idx', 'pending'), 1200, "$name = $value: ANALYZE leaves them");
	$node->safe_psql($db, 'VACUUM n');
	is(rows_in('n_e_idx', 'pending'), 0, "$name = $value: VACUUM moves them");
	# More than the list may hold: inserts help.
	$node->safe_psql($db, 'INSERT INTO n (e) SELECT vec(n) FROM generate_series(10001, 25000) n');
	cmp_ok(rows_in('n_e_idx', 'hnsw'), '>', 1200, "$name = $value: inserts move rows when there are too many");
	same_rows($node, 'n', "$name = $value");
	sound($node, 'n_e_idx', "$name = $value");
}

# Temporary and unlogged tables.
$node->append_conf('postgresql.conf', "hybrid.compaction_workers = 1\nmax_worker_processes = 4\n");
$node->restart;
is($node->safe_psql($db, <<'SQL'), "900\n0", 'a temporary index is compacted by its session');
CREATE TEMPORARY TABLE tmp (id bigserial PRIMARY KEY, e vector(16));
CREATE INDEX tmp_e_idx ON tmp USING hybrid (e) WITH (pending_rows = 500, recent_threshold = 'infinity');
INSERT INTO tmp (e) SELECT vec(n) FROM generate_series(1, 900) n;
SELECT sum(rows) FROM hybrid_segments('tmp_e_idx') WHERE kind = 'pending';
VACUUM tmp;
SELECT sum(rows) FROM hybrid_segments('tmp_e_idx') WHERE kind = 'pending';
SELECT * FROM hybrid_check('tmp_e_idx', true);
SQL
$node->safe_psql($db, <<'SQL');
CREATE UNLOGGED TABLE u (id bigserial PRIMARY KEY, e vector(16));
CREATE INDEX u_e_idx ON u USING hybrid (e) WITH (pending_rows = 500, recent_threshold = 'infinity');
INSERT INTO u (e) SELECT vec(n) FROM generate_series(1, 900) n;
SQL
ok(wait_until(sub { rows_in('u_e_idx', 'pending') < 500 }, 20), 'the worker looks after unlogged tables');
same_rows($node, 'u', 'unlogged');

# Outside of quiet hours flushes go on.
my $other = $node->safe_psql($db, "SELECT to_char(now() + interval '3 hours', 'HH24:MI-') || to_char(now() + interval '4 hours', 'HH24:MI')");
$node->append_conf('postgresql.conf', "hybrid.quiet_hours = '$other'\n");
$node->reload;
$node->safe_psql($db, 'INSERT INTO u (e) SELECT vec(n) FROM generate_series(2000, 3000) n');
ok(wait_until(sub { rows_in('u_e_idx', 'pending') < 500 }, 20), 'flushes are not confined to quiet hours');

$node->stop;
crash_free($node, 'worker');
unlike(slurp_file($node->logfile), qr/you don't own a lock|WARNING/, 'no warning');
done_testing();
