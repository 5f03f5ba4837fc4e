# kill -9 of the whole server while rows move: inserts at full speed, flushes, merges, migrations, cleaning up, VACUUM. After each
# recovery the index is sound and agrees with the table; in the end no page is lost.
#
# CRASH_ROUNDS: how often. SEED: repeats the moments.
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

my $rounds = $ENV{CRASH_ROUNDS} || 5;
my $seed = $ENV{SEED} || int(rand(2**31));
srand($seed);
diag("seed $seed, $rounds rounds");

my $node = new_node('compaction_crash', conf => <<'CONF');
checkpoint_timeout = 30s
max_wal_size = 64MB
hybrid.log_compaction_min_duration = 0
CONF
# All in graphs; all in lists; both, the newest rows in graphs.
my %indexes = (
	g => "recent_threshold = 'infinity'",
	l => 'recent_rows = 0',
	b => 'recent_rows = 2000');
for my $t (sort keys %indexes)
{
	$node->safe_psql('postgres', <<"SQL");
CREATE TABLE $t (id bigserial PRIMARY KEY, e vector(16)) WITH (fillfactor = 70);
CREATE INDEX ${t}_e_idx ON $t USING hybrid (e)
    WITH (pending_rows = 200, segment_rows = 1000, ef_construction = 40, $indexes{$t});
SQL
}

my $dir = PostgreSQL::Test::Utils::tempdir;
my @scripts;
for my $t (sort keys %indexes)
{
	append_to_file("$dir/insert_$t.sql", <<"SQL");
\\set n random(1, 1000000)
INSERT INTO $t (e) SELECT vec(k) FROM generate_series(:n, :n + 60) k;
SQL
	append_to_file("$dir/delete_$t.sql", <<"SQL");
\\set n random(1, 1000000)
DELETE FROM $t WHERE id IN (SELECT id FROM $t WHERE id % 101 = :n % 101 LIMIT 40);
SQL
	append_to_file("$dir/compact_$t.sql", "SELECT count(*) FROM hybrid_compact('${t}_e_idx');\n\\sleep 20 ms\n");
	append_to_file("$dir/vacuum_$t.sql", "VACUUM $t;\n\\sleep 100 ms\n");
	push @scripts, map { ('-f', "$dir/$_") } "insert_$t.sql\@6", "delete_$t.sql\@3", "compact_$t.sql\@2", "vacuum_$t.sql\@1";
}

for my $round (1 .. $rounds)
{
	my ($in, $out) = ('', '');
	my $load = IPC::Run::start(
		[ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, '-c', 6, '-T', 60, @scripts, 'postgres' ],
		\$in, '>&', \$out);
	usleep(200_000 + rand 2_500_000);
	kill_server($node);
	$load->finish;
	unlike($out, qr/ERROR:(?!.*(?:terminat|recovery|starting up|shutting down|server closed))/, "round $round: no error but the crash");
	$node->start;
	for my $t (sort keys %indexes)
	{
		sound($node, "${t}_e_idx", "round $round");
		same_rows($node, $t, "round $round");
	}
}

# What crashes left is found. A later transaction, and two VACUUMs.
for my $t (sort keys %indexes)
{
	$node->safe_psql('postgres', "DELETE FROM $t WHERE id % 50 = 0");
	$node->safe_psql('postgres', "SELECT count(*) FROM hybrid_compact('${t}_e_idx')");
	$node->safe_psql('postgres', 'SELECT txid_current()');
	$node->safe_psql('postgres', "VACUUM $t");
	$node->safe_psql('postgres', 'SELECT txid_current()');
	$node->safe_psql('postgres', "VACUUM $t");
	is(leaked_pages($node, "${t}_e_idx"), 0, "$t: no page is lost");
	sound($node, "${t}_e_idx", 'in the end');
	same_rows($node, $t, 'in the end');
	diag($node->safe_psql('postgres', "SELECT '$t', action, count(*), sum(rows) FROM hybrid_history('${t}_e_idx') GROUP BY action"));
}
$node->stop;
my @bad = grep { /PANIC|TRAP:|panicked|XX00|you don't own/ } split /\n/, slurp_file($node->logfile);
is(join("\n", @bad[ 0 .. ($#bad > 9 ? 9 : $#bad) ]), '', 'nothing worse than the crashes in the log');
done_testing();
