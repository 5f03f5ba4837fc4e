# Standbys that search while the primary compacts, with and without feedback. Replay is compared byte for byte. Queries see
# right answers or end with 40001; none reports damage.
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

my $primary = new_node(
	'primary',
	init => [ allows_streaming => 1 ],
	conf => "wal_keep_size = 2GB\nwal_consistency_checking = 'all'\nmax_wal_size = 1GB\nhybrid.compaction_workers = 0\nautovacuum = off\n");
$primary->backup('base');
my %standbys;
for my $feedback ('on', 'off')
{
	my $standby = PostgreSQL::Test::Cluster->new("standby_$feedback");
	$standby->init_from_backup($primary, 'base', has_streaming => 1);
	$standby->append_conf('postgresql.conf', <<"CONF");
hot_standby_feedback = $feedback
wal_receiver_status_interval = 1s
max_standby_streaming_delay = @{[ $feedback eq 'on' ? '30s' : '0' ]}
CONF
	$standby->start;
	$standbys{$feedback} = $standby;
}

my %indexes = (g => "recent_threshold = 'infinity'", l => 'recent_rows = 0');
for my $t (sort keys %indexes)
{
	$primary->safe_psql('postgres', <<"SQL");
CREATE TABLE $t (id bigserial PRIMARY KEY, e vector(16));
CREATE INDEX ${t}_e_idx ON $t USING hybrid (e) WITH (pending_rows = 300, segment_rows = 1000, $indexes{$t});
INSERT INTO $t (e) SELECT vec(n) FROM generate_series(1, 3000) n;
SQL
}
$primary->wait_for_catchup($_, 'replay') for values %standbys;

# Queries that take a while: a cursor that is read slowly, over steps of compaction.
my $dir = PostgreSQL::Test::Utils::tempdir;
my @load;
sub run_load
{
	my ($node, $name, $sql, @args) = @_;
	append_to_file("$dir/$name.sql", $sql);
	my ($in, $out) = ('', '');
	push @load,
	  [ $name, \$out, IPC::Run::start([ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, '-T', 10, @args, '-f', "$dir/$name.sql", 'postgres' ],
			\$in, '>&', \$out) ];
}
for my $t (sort keys %indexes)
{
	run_load($primary, "write_$t", <<"SQL", '-c', 2);
\\set n random(1, 1000000)
INSERT INTO $t (e) SELECT vec(k) FROM generate_series(:n, :n + 30) k;
DELETE FROM $t WHERE id IN (SELECT id FROM $t WHERE id % 31 = :n % 31 LIMIT 25);
SQL
	run_load($primary, "compact_$t", "SELECT count(*) FROM hybrid_compact('${t}_e_idx');\nVACUUM $t;\n\\sleep 30 ms\n", '-c', 1);
	for my $feedback (sort keys %standbys)
	{
		my @retry = $feedback eq 'off' ? ('--max-tries', 1000) : ();
		# Feedback of the other standby keeps pages on the primary for a second or so.
		my $sleep = $feedback eq 'off' ? 1200 : 20;
		run_load($standbys{$feedback}, "search_${t}_$feedback", <<"SQL", '-c', 2, @retry);
\\set n random(1, 1000000)
BEGIN;
SET LOCAL enable_seqscan = off;
SET LOCAL enable_sort = off;
DECLARE c CURSOR FOR SELECT id, e <-> vec(:n) AS d FROM $t ORDER BY e <-> vec(:n);
FETCH 10 FROM c;
\\sleep $sleep ms
FETCH 500 FROM c;
\\sleep $sleep ms
FETCH 500 FROM c;
COMMIT;
SQL
	}
}
my $end = time() + 9;
my ($checks, $problems) = (0, '');
while (time() < $end)
{
	for my $t (sort keys %indexes)
	{
		# With feedback nothing may go wrong at all.
		my ($code, $out, $err) = $standbys{on}->psql('postgres', "SELECT * FROM hybrid_check('${t}_e_idx', true) LIMIT 3");
		$problems .= $out . $err;
		$problems .= row_differences($standbys{on}, $t);
		$checks++;
	}
}
for my $l (@load)
{
	my ($name, $out, $run) = @$l;
	$run->finish;
	diag("$name: $1") if $$out =~ /(number of transactions (?:retried|failed).*)/;
	unlike($$out, qr/damaged|XX00/, "$name: no damage seen");
	unlike($$out, qr/ERROR/, "$name: no error") unless $name =~ /search_._off/;
}
is($problems, '', "$checks checks on the standby with feedback find nothing");

for my $feedback (sort keys %standbys)
{
	my $standby = $standbys{$feedback};
	$primary->wait_for_catchup($standby, 'replay');
	for my $t (sort keys %indexes)
	{
		sound($standby, "${t}_e_idx", "feedback $feedback");
		same_rows($standby, $t, "feedback $feedback");
	}
	diag("feedback $feedback: " . $standby->safe_psql('postgres', 'SELECT confl_snapshot FROM pg_stat_database_conflicts WHERE datname = current_database()') . ' conflicts');
	like(($standby->psql('postgres', "SELECT * FROM hybrid_compact('g_e_idx')"))[2], qr/cannot execute hybrid_compact\(\) during recovery/,
		"feedback $feedback: hybrid_compact is refused");
	isnt($standby->safe_psql('postgres', "SELECT count(*) FROM hybrid_history('g_e_idx')"), 0, "feedback $feedback: hybrid_history is read");
}
is(join(' ', workers($standbys{on}, 'postgres')), '', 'a standby has no worker');

# A query that needs pages of a dropped segment is told so, and not shown others' rows. Nothing happens to the table but
# inserts, so that the conflict can only come from the index.
my $standby = $standbys{off};
$primary->safe_psql('postgres', 'VACUUM g');
$primary->wait_for_catchup($standby, 'replay');
my ($in, $out, $err) = ("BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off;
DECLARE c CURSOR FOR SELECT id FROM g ORDER BY e <-> vec(1); FETCH 1 FROM c; \\echo opened\n", '', '');
my $session = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', $standby->connstr('postgres') ], \$in, '>', \$out, '2>', \$err);
$session->pump until $out =~ /opened/;
$primary->safe_psql('postgres', 'INSERT INTO g (e) SELECT vec(n) FROM generate_series(1, 3000) n');
my $freed = wait_until(
	sub {
		$primary->safe_psql('postgres', 'SELECT txid_current()');
		return $primary->safe_psql('postgres', "SELECT action FROM hybrid_compact('g_e_idx')") =~ /free/;
	},
	20);
ok($freed, 'pages are given up on the primary');
$primary->wait_for_catchup($standby, 'replay');
$in = "FETCH ALL FROM c;\n\\q\n";
$session->finish;
like($err, qr/40001|conflict with recovery|terminating connection/, 'the query is canceled by the conflict');

$primary->stop;
$standbys{on}->append_conf('postgresql.conf', "hybrid.compaction_workers = 1\n");
$standbys{on}->reload;
$standbys{on}->promote;
$standbys{on}->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
$standbys{on}->safe_psql('postgres', 'INSERT INTO g (e) SELECT vec(n) FROM generate_series(1, 900) n');
ok(wait_until(sub { $standbys{on}->safe_psql('postgres', "SELECT sum(rows) FROM hybrid_segments('g_e_idx') WHERE kind = 'pending'") < 300 }, 20),
	'after promotion a worker comes');
sound($standbys{on}, 'g_e_idx', 'promoted');
same_rows($standbys{on}, 'g', 'promoted');
for my $s (values %standbys)
{
	$s->stop;
	unlike(slurp_file($s->logfile), qr/inconsistent page found/, $s->name . ': no page differs after replay');
	crash_free($s, $s->name);
}
crash_free($primary, 'primary');
done_testing();
