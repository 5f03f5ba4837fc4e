# Many sessions at a time: no lost row, no duplicate, no error, no deadlock, and no backend that grows.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use HybridVec;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $SECONDS = $ENV{SECONDS_OF_LOAD} || 8;
my $node = new_node('many', conf => "max_wal_size = 2GB\nshared_buffers = 64MB\ndeadlock_timeout = 200ms\n");
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE t (id bigserial PRIMARY KEY, e vector(16)) WITH (autovacuum_enabled = off);
INSERT INTO t (e) SELECT vec(n) FROM generate_series(1, 1500) n;
CREATE INDEX t_e_idx ON t USING hybrid (e) WITH (segment_rows = 1000, ef_construction = 40);
-- Vectors to insert, made beforehand: the sessions are to fight over the index, not to compute.
CREATE TABLE stock AS SELECT n::int, vec(n) AS e FROM generate_series(1, 20000) n;
ALTER TABLE stock ADD PRIMARY KEY (n);
SQL

my $dir = PostgreSQL::Test::Utils::tempdir;
my %scripts = (
	# A tenth of the rows are duplicates of three vectors: sessions meet on the same elements and overflow chunks.
	write => <<'SQL',
\set n random(1, 20000)
\set same random(1, 10)
INSERT INTO t (e) SELECT e FROM stock WHERE n = CASE WHEN :same = 1 THEN 1 + :n % 3 ELSE :n END;
SQL
	delete => <<'SQL',
\set n random(1, 1000000)
DELETE FROM t WHERE id IN (SELECT id FROM t WHERE id % 211 = :n % 211 LIMIT 10);
\sleep 5 ms
SQL
	vacuum => "VACUUM (INDEX_CLEANUP on, TRUNCATE off) t;\n",
	search => <<'SQL',
\set n random(1, 20000)
SET enable_seqscan = off;
SELECT t.id FROM t ORDER BY e <-> (SELECT e FROM stock WHERE n = :n) LIMIT 10;
SQL
	all => <<'SQL',
\set n random(1, 20000)
SET enable_seqscan = off;
SELECT count(*) FROM (SELECT t.id FROM t ORDER BY e <-> (SELECT e FROM stock WHERE n = :n) OFFSET 0) s;
SELECT 1 / (1 - count(*)::int) FROM hybrid_check('t_e_idx', true) LIMIT 1;
\sleep 100 ms
SQL
);
append_to_file("$dir/$_.sql", $scripts{$_}) for keys %scripts;
my @load;
for my $part ([ 8, 'write' ], [ 2, 'delete' ], [ 2, 'vacuum' ], [ 8, 'search' ], [ 1, 'all' ])
{
	my ($clients, $script) = @$part;
	my ($in, $out) = ('', '');
	push @load,
	  [ $script, \$out, IPC::Run::start([ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, '-c', $clients, '-T', $SECONDS, '-f', "$dir/$script.sql", 'postgres' ],
			\$in, '>&', \$out) ];
}
for my $l (@load)
{
	my ($script, $out, $run) = @$l;
	$run->finish;
	unlike($$out, qr/ERROR|aborted|FATAL/, "$script: no error");
	my ($done) = $$out =~ /actually processed: (\d+)/;
	cmp_ok($done // 0, '>', 0, "$script: " . ($done // 0) . ' transactions');
}
sound($node, 't_e_idx', 'after the load');
same_rows($node, 't', 'after the load');
recall_at_least($node, 't_e_idx', 0.95, 'after the load');
my $stats = $node->safe_psql('postgres', "SELECT rows, elements, dead_rows, unreachable, segments FROM hybrid_stats('t_e_idx')");
diag("rows|elements|dead_rows|unreachable|segments: $stats");
my @stats = split /\|/, $stats;
cmp_ok($stats[3], '<=', 2 + 0.001 * $stats[1], "$stats[3] elements out of reach");
cmp_ok($stats[4], '>', 1, "sealed under load: $stats[4] segments");

# Rows that an exhaustive search in order shows: all but the few that were found too late to be in order.
my $shown = $node->safe_psql('postgres', <<'SQL');
SET enable_seqscan = off;
SELECT count(*), count(DISTINCT id), (SELECT count(*) FROM t)
FROM (SELECT id FROM t ORDER BY e <-> (SELECT e FROM stock WHERE n = 77) OFFSET 0) s
SQL
my ($got, $distinct, $have) = split /\|/, $shown;
is($got, $distinct, 'an exhaustive search shows no row twice');
cmp_ok($got, '>=', 0.999 * $have, "an exhaustive search shows $got of $have rows");

# Two inserts of one new vector at a time in many sessions, then their removal: chains of heap TIDs empty and fill.
$node->safe_psql('postgres', 'TRUNCATE t');
append_to_file("$dir/chain.sql", "INSERT INTO t (e) SELECT e FROM stock WHERE n <= 2;\nDELETE FROM t WHERE id IN (SELECT id FROM t ORDER BY id LIMIT 1);\n");
my ($in, $out) = ('', '');
my $chain = IPC::Run::start([ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, '-c', 8, '-T', 3, '-f', "$dir/chain.sql\@20", '-f', "$dir/vacuum.sql", 'postgres' ], \$in, '>&', \$out);
$chain->finish;
unlike($out, qr/ERROR|aborted|FATAL/, 'duplicates: no error');
sound($node, 't_e_idx', 'duplicates');
same_rows($node, 't', 'duplicates');

# A backend's own memory after thousands of searches and inserts.
my ($say, $said, $err) = ("SELECT pg_backend_pid();\n", '', '');
my $session = IPC::Run::start([ 'psql', '-XAtq', $node->connstr('postgres') ], \$say, '>', \$said, '2>', \$err);
$session->pump until $said =~ /^(\d+)\n/;
my $pid = $1;
my $ask = sub {
	($said, $say) = ('', "$_[0]\n\\echo .\n");
	$session->pump until $said =~ /^\.$/m || $err;
};

sub own_memory { slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m ? $1 : die 'no RssAnon' }

$ask->(<<'SQL');
SET enable_seqscan = off;
CREATE PROCEDURE searches(n int) LANGUAGE plpgsql AS $$
DECLARE r record;
BEGIN
    FOR i IN 1 .. n LOOP
        PERFORM id FROM t ORDER BY e <-> (SELECT s.e FROM stock s WHERE s.n = 1 + i * 7 % 20000) LIMIT 10;
        IF i % 100 = 0 THEN COMMIT; END IF;
    END LOOP;
END $$;
CREATE PROCEDURE inserts(n int) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. n LOOP
        INSERT INTO t (e) SELECT s.e FROM stock s WHERE s.n = 1 + i * 13 % 20000;
        IF i % 100 = 0 THEN COMMIT; END IF;
    END LOOP;
END $$;
CALL inserts(2000); CALL searches(1000);
SQL
my $before = own_memory();
$ask->('CALL searches(10000);');
my $searched = own_memory();
$ask->('CALL inserts(2000);');
my $inserted = own_memory();
# One statement, one transaction: what a row leaves behind must not wait for the end.
$ask->('INSERT INTO t (e) SELECT e FROM stock WHERE n <= 2000;');
my $batch = own_memory();
$ask->('DO $$ BEGIN FOR i IN 1 .. 3000 LOOP BEGIN PERFORM id FROM t ORDER BY e <-> \'[1,2]\' LIMIT 1; EXCEPTION WHEN others THEN NULL; END; END LOOP; END $$;');
my $errors = own_memory();
is($err, '', 'no errors');
diag("RssAnon: $before kB at first, $searched after 10,000 searches, $inserted after 2,000 inserts, $batch after 2,000 in one statement, $errors after 3,000 errors");
cmp_ok($searched - $before, '<', 2048, 'searches leave no memory behind');
cmp_ok($inserted - $searched, '<', 2048, 'inserts leave no memory behind');
cmp_ok($batch - $inserted, '<', 4096, 'inserts of one statement leave no memory behind');
cmp_ok($errors - $batch, '<', 4096, 'errors leave no memory behind');
$session->kill_kill;

my $log = slurp_file($node->logfile);
unlike($log, qr/deadlock detected|still waiting for/, 'no deadlock, no long wait for a lock');
$node->stop;
crash_free($node, 'many');
done_testing();
