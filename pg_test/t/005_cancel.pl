# Cancel, statement_timeout and pg_terminate_backend reach a build, an insert, a scan and a vacuum at once, and leave
# nothing behind. What is asserted is generous (a second); what is measured is printed.
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

my $LIMIT = 1.0;
my $node = new_node('cancel', conf => "max_wal_size = 2GB\nshared_buffers = 128MB\nwork_mem = 64MB\nmaintenance_work_mem = 256MB\n");
$node->safe_psql('postgres', <<'SQL');
-- As many rows as give every phase some 100 ms: few distinct ones made at length, then shifted.
CREATE TABLE base AS SELECT n, vec(n, 256) AS e FROM generate_series(1, 1500) n;
CREATE TABLE t (id bigserial, e vector(256));
INSERT INTO t (e) SELECT b.e + c.e FROM base b, (SELECT * FROM base WHERE n % 75 = 0) c;
-- Makes loading as slow as a table of long rows does.
CREATE FUNCTION slow(id bigint) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
    'BEGIN IF id % 100 = 0 THEN PERFORM pg_sleep(0.002); END IF; RETURN true; END';
CREATE TABLE indexed (LIKE t INCLUDING ALL);
INSERT INTO indexed SELECT * FROM t LIMIT 12000;
CREATE INDEX indexed_e_idx ON indexed USING hybrid (e);
SQL
my $rows = $node->safe_psql('postgres', 'SELECT count(*) FROM t');

# Files of the database that no relation owns.
sub orphans
{
	# Files of dropped relations go with the next checkpoint.
	$node->safe_psql('postgres', 'CHECKPOINT');
	my $db = $node->safe_psql('postgres', "SELECT oid FROM pg_database WHERE datname = 'postgres'");
	my %owned = map { $_ => 1 } split /\n/, $node->safe_psql('postgres', 'SELECT pg_relation_filenode(oid) FROM pg_class');
	return join ' ', grep { /^(\d+)/ && !$owned{$1} } map { s!.*/!!r } glob $node->data_dir . "/base/$db/*";
}

# Runs `$sql` in a session, waits for `$ready` (a query that says 't', given the session's pid), then does `$act`;
# returns the seconds until the session's statement ended, and what the session said.
sub interrupt
{
	my ($sql, $ready, $act) = @_;
	my ($in, $out, $err) = ("SELECT pg_backend_pid();\n", '', '');
	my $session = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', $node->connstr('postgres') ], \$in, '>', \$out, '2>', \$err);
	$session->pump until $out =~ /^(\d+)\n/;
	my $pid = $1;
	my ($query, $said, $unused) = ('', '', '');
	my $observer = IPC::Run::start([ 'psql', '-XAtq', $node->connstr('postgres') ], \$query, '>', \$said, '2>', \$unused);
	my $ask = sub {
		($said, $query) = ('', "$_[0];\n\\echo .\n");
		$observer->pump until $said =~ /^\.$/m;
		return $said;
	};
	$ask->('SELECT true');
	$in = "\\echo started\n$sql\n\\echo ended\n\\q\n";
	$session->pump until $out =~ /started/;
	my $end = time() + 20;
	my $seen = 0;
	while (!$seen && time() < $end && $ask->("SELECT state = 'active' OR clock_timestamp() - state_change < '300 ms' FROM pg_stat_activity WHERE pid = $pid") =~ /^t$/m)
	{
		$seen = $ask->(sprintf $ready, $pid) =~ /^t$/m;
		usleep(500);
	}
	my $start = time();
	$ask->(sprintf $act, $pid);
	# Until the statement has ended, as the server sees it.
	while ($ask->("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND state = 'active'") =~ /^1$/m) { }
	my $seconds = time() - $start;
	$observer->kill_kill;
	eval { $session->finish };
	return ($seen, $seconds, $err);
}

my %took;

sub ends_soon
{
	my ($label, $sql, $ready, $act, $error) = @_;
	my ($seen, $seconds, $said);
	# A phase of some milliseconds may have passed before the act, or the machine may be busy: then once more.
	for my $try (1 .. 5)
	{
		($seen, $seconds, $said) = interrupt($sql, $ready, $act);
		diag(sprintf '%s: took %.0f ms, again', $label, $seconds * 1000) if $seen && $seconds >= $LIMIT;
		last if $seen && $said =~ $error && $seconds < $LIMIT;
		$node->safe_psql('postgres', 'DROP INDEX IF EXISTS t_e_idx; DROP INDEX IF EXISTS c_e_idx');
	}
	$took{$label} = $seconds * 1000;
	ok($seen, "$label: caught in the act");
	like($said, $error, "$label: the session is told");
	cmp_ok($seconds, '<', $LIMIT, sprintf '%s: ended after %.0f ms', $label, $seconds * 1000);
	is($node->safe_psql('postgres', "SELECT count(*) FROM pg_class WHERE relname = 't_e_idx'"), 0, "$label: no index remains");
	is(join(' ', temp_files($node)), '', "$label: no temporary file remains");
}

my $RUNNING = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %d AND state = 'active' AND query ~ 'INSERT|SELECT|VACUUM' AND clock_timestamp() - query_start > '150 ms')";
my $CANCEL = 'SELECT pg_cancel_backend(%d)';
my $TERMINATE = 'SELECT pg_terminate_backend(%d)';
my $CANCELED = qr/57014/;
my $TERMINATED = qr/57P01|connection to server was lost|terminating connection/;

sub in_phase
{
	my ($phase, $done) = @_;
	return "SELECT EXISTS (SELECT FROM pg_stat_progress_create_index WHERE pid = %d AND phase LIKE 'building index: $phase%%' AND tuples_done >= $done)";
}

for my $memory ('256MB', '1MB')
{
	my $build = "SET maintenance_work_mem = '$memory'; SET client_min_messages = warning; CREATE INDEX t_e_idx ON t USING hybrid (e);";
	ends_soon("cancel while loading, $memory", $build =~ s/;$/ WHERE slow(id);/r, in_phase('loading tuples', 1000), $CANCEL, $CANCELED);
	ends_soon("cancel while linking, $memory", $build, in_phase('linking elements', 5000), $CANCEL, $CANCELED);
	ends_soon("cancel while writing, $memory", $build, in_phase('writing', 0), $CANCEL, $CANCELED);
	ends_soon("terminate while linking, $memory", $build, in_phase('linking elements', 2000), $TERMINATE, $TERMINATED);
}
my $many = "SET maintenance_work_mem = '1MB'; SET client_min_messages = warning; CREATE INDEX t_e_idx ON t USING hybrid (e) WITH (segment_rows = 1000);";
ends_soon('cancel in a build of many segments', $many, in_phase('linking elements', 300), $CANCEL, $CANCELED);
my $wide = <<'SQL';
CREATE TEMP TABLE wide AS SELECT array_fill(random()::real, ARRAY[16000])::vector(16000) + array_agg(random())::vector AS e
    FROM generate_series(1, 600) r, generate_series(1, 16000) i GROUP BY r;
CREATE INDEX t_e_idx ON wide USING hybrid (e) WITH (ef_construction = 400, m = 64);
SQL
SKIP:
{
	skip 'takes 20 s: set SLOW=1', 5 unless $ENV{SLOW};
	ends_soon('cancel while linking 16,000 dimensions', $wide, in_phase('linking elements', 1), $CANCEL, $CANCELED);
}
ends_soon('cancel in CREATE INDEX CONCURRENTLY, then DROP', 'CREATE INDEX CONCURRENTLY c_e_idx ON t USING hybrid (e);',
	in_phase('linking elements', 1000), $CANCEL, $CANCELED);
$node->safe_psql('postgres', 'DROP INDEX c_e_idx');
ends_soon('terminate while loading', 'CREATE INDEX t_e_idx ON t USING hybrid (e) WHERE slow(id);',
	in_phase('loading tuples', 1000), $TERMINATE, $TERMINATED);
ends_soon('terminate while writing', 'CREATE INDEX t_e_idx ON t USING hybrid (e);',
	in_phase('writing', 0), $TERMINATE, $TERMINATED);

ends_soon('cancel INSERT .. SELECT', 'INSERT INTO indexed (e) SELECT e FROM t;', $RUNNING, $CANCEL, $CANCELED);
ends_soon('cancel an exhaustive scan',
	'SET enable_seqscan = off; SET enable_sort = off; SELECT count(*) FROM (SELECT a.id FROM generate_series(1, 100) n, LATERAL (SELECT id FROM indexed ORDER BY e <-> vec(n, 256) OFFSET 0) a) s;',
	$RUNNING, $CANCEL, $CANCELED);
ends_soon('cancel a wide search',
	'SET enable_seqscan = off; SET hybrid.ef_search = 10000; SELECT count(*) FROM (SELECT a.id FROM generate_series(1, 2000) n, LATERAL (SELECT id FROM indexed ORDER BY e <-> vec(n, 256) LIMIT 1) a) s;',
	$RUNNING, $CANCEL, $CANCELED);
$node->safe_psql('postgres', 'DELETE FROM indexed WHERE id % 2 = 0');
ends_soon('cancel VACUUM', "SET vacuum_cost_delay = '5ms'; SET vacuum_cost_limit = 60; VACUUM indexed;",
	"SELECT EXISTS (SELECT FROM pg_stat_progress_vacuum WHERE pid = %d AND phase = 'vacuuming indexes')", $CANCEL, $CANCELED);
ends_soon('cancel hybrid_check', "SELECT count(*) FROM generate_series(1, 1000), hybrid_check('indexed_e_idx', true);", $RUNNING, $CANCEL, $CANCELED);
ends_soon('cancel hybrid_stats', "SELECT count(*) FROM (SELECT hybrid_stats('indexed_e_idx') FROM generate_series(1, 1000)) s;", $RUNNING, $CANCEL, $CANCELED);

# statement_timeout: the statement takes as long as it may, and at most a second longer.
for my $case (
	[ 'CREATE INDEX',     'CREATE INDEX t_e_idx ON t USING hybrid (e)' ],
	[ 'spilling CREATE INDEX', 'CREATE INDEX t_e_idx ON t USING hybrid (e)', "SET maintenance_work_mem = '1MB'; SET client_min_messages = warning;" ],
	[ 'INSERT .. SELECT', 'INSERT INTO indexed (e) SELECT e FROM t, generate_series(1, 100)' ],
	[ 'a full scan',      'SELECT count(*) FROM (SELECT a.id FROM generate_series(1, 100) n, LATERAL (SELECT id FROM indexed ORDER BY e <-> vec(n, 256) OFFSET 0) a) s', 'SET enable_seqscan = off; SET enable_sort = off;' ])
{
	my ($label, $sql, $before) = @$case;
	for my $timeout (100, 333, 700)
	{
		my $start = time();
		my ($code, $out, $err) = $node->psql('postgres',
			($before // '') . " SET statement_timeout = '$timeout ms'; SELECT clock_timestamp(); $sql;");
		my $over = (time() - $start) * 1000 - $timeout;
		like($err, qr/canceling statement due to statement timeout/, "$label: statement_timeout $timeout");
		cmp_ok($over, '<', 1000 * $LIMIT, sprintf '%s: %.0f ms over', $label, $over);
		$took{"statement_timeout $timeout, $label"} = $over;
	}
}

is(join(' ', temp_files($node)), '', 'no temporary files');
sound($node, 'indexed_e_idx', 'after all');
same_rows($node, 'indexed', 'after all');
is($node->safe_psql('postgres', 'SELECT count(*) FROM t'), $rows, 'the table is as it was');
is(orphans(), '', 'no file of an index remains');
$node->stop;
crash_free($node, 'cancel');
diag(sprintf '%5.0f ms  %s', $took{$_}, $_) for sort { $took{$b} <=> $took{$a} } keys %took;
done_testing();
