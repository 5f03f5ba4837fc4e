# kill -9 of the whole server at random moments while sessions insert, update, delete, vacuum and search. After each
# recovery the index must be sound, agree with the table, hold what clients were told is committed, and take rows.
#
# CRASH_ROUNDS: how often. SEED: repeats the moments and the statements of a run (not what the scheduler made of them).
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

my $node = new_node('crash', conf => <<'CONF');
checkpoint_timeout = 30s
max_wal_size = 64MB
CONF
# Code tails (1500 dimensions) and whole elements (16) crash differently; the first is small so that it stays fast.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE t (id bigserial PRIMARY KEY, e vector(16), note int) WITH (fillfactor = 70);
INSERT INTO t (e) SELECT vec(n) FROM generate_series(1, 1500) n;
CREATE INDEX t_e_idx ON t USING hybrid (e) WITH (segment_rows = 1000, ef_construction = 40);
CREATE TABLE long (id bigserial PRIMARY KEY, e vector(1500));
CREATE INDEX long_e_idx ON long USING hybrid (e vector_cosine_ops) WITH (segment_rows = 1000, m = 8);
INSERT INTO long (e) SELECT vec(n, 1500) FROM generate_series(1, 50) n;
CREATE TABLE ghost (n int);
SQL

my $dir = PostgreSQL::Test::Utils::tempdir;

sub script
{
	my ($name, $sql) = @_;
	append_to_file("$dir/$name.sql", $sql);
	return "$dir/$name.sql";
}

# One row in eight is a duplicate of one of five vectors, so that elements get many rows and overflow chunks.
my @scripts = (
	script('insert', <<'SQL') . '@8',
\set n random(1, 1000000)
\set same random(1, 8)
INSERT INTO t (e) SELECT vec(CASE WHEN :same = 1 THEN :n % 5 ELSE :n END);
SQL
	script('batch', <<'SQL') . '@2',
\set n random(1, 1000000)
BEGIN;
INSERT INTO t (e) SELECT vec(k) FROM generate_series(:n, :n + 20) k;
INSERT INTO long (e) SELECT vec(:n, 1500);
COMMIT;
SQL
	script('abort', <<'SQL') . '@1',
\set n random(1, 1000000)
BEGIN;
INSERT INTO t (e) SELECT vec(k) FROM generate_series(:n, :n + 10) k;
ROLLBACK;
SQL
	script('update', <<'SQL') . '@3',
\set n random(1, 1000000)
UPDATE t SET e = vec(:n), note = :n WHERE id IN (SELECT id FROM t WHERE id % 97 = :n % 97 LIMIT 3) AND note IS DISTINCT FROM -1;
SQL
	script('hot', <<'SQL') . '@2',
\set n random(1, 1000000)
UPDATE t SET note = :n WHERE id IN (SELECT id FROM t WHERE id % 89 = :n % 89 LIMIT 3) AND note IS DISTINCT FROM -1;
SQL
	script('delete', <<'SQL') . '@3',
\set n random(1, 1000000)
DELETE FROM t WHERE id IN (SELECT id FROM t WHERE id % 101 = :n % 101 LIMIT 8) AND note IS DISTINCT FROM -1;
SQL
	script('search', <<'SQL') . '@4',
\set n random(1, 1000000)
SELECT id FROM t ORDER BY e <-> vec(:n) LIMIT 10;
SQL
);
my $vacuum = script('vacuum', "VACUUM t;\nVACUUM long;\n\\sleep 20 ms\n");

sub start_load
{
	my ($number) = @_;
	my @load;
	my @connect = ('-n', '-h', $node->host, '-p', $node->port, '-T', '120');
	for my $args (
		[ '-c', '4', '-j', '1', "--random-seed=$number", map { ('-f', $_) } @scripts ],
		[ '-c', '1', "--random-seed=$number", '-f', $vacuum ])
	{
		my ($in, $out) = ('', '');
		push @load, IPC::Run::start([ 'pgbench', @connect, @$args, 'postgres' ], \$in, '>&', \$out);
	}
	# Who hears that a row is committed writes it down: psql prints RETURNING's row once the statement has ended.
	# Nobody deletes rows with this note.
	my $ledger = "$dir/ledger.$number";
	my $inserts = join "\n", map { "INSERT INTO t (e, note) SELECT vec(" . (2000000 + $number * 10000 + $_) . '), -1 RETURNING id;' } 1 .. 3000;
	my $file = script("ledger.$number", $inserts);
	push @load,
	  IPC::Run::start([ 'psql', '-XAtq', '-h', $node->host, '-p', $node->port, '-f', $file, 'postgres' ],
		'>', $ledger, '2>', '/dev/null');
	return ($ledger, @load);
}

my $told = 0;
for my $round (1 .. $rounds)
{
	my ($ledger, @load) = start_load(int(rand(2**20)));
	my $moment = 0.3 + rand(1.7);
	# Half of the rounds have a checkpoint somewhere in their middle: recovery starts at a torn moment.
	if ($round % 2)
	{
		usleep(1e6 * $moment / 2);
		$node->safe_psql('postgres', 'CHECKPOINT');
		usleep(1e6 * $moment / 2);
	}
	else
	{
		usleep(1e6 * $moment);
	}
	kill_server($node);
	$_->finish for @load;
	$node->start;

	my @ids = map { /^(\d+)\n/ ? $1 : () } split /(?<=\n)/, slurp_file($ledger);
	$told += @ids;
	my $label = sprintf 'round %d, killed after %.2f s', $round, $moment;
	my $there = $node->safe_psql('postgres', "SELECT count(*) FROM t WHERE id = ANY('{" . join(',', @ids) . "}')");
	is($there, scalar @ids, "$label: rows that were told committed are there");
	sound($node, 't_e_idx', $label);
	sound($node, 'long_e_idx', $label);
	same_rows($node, 't', $label);
	recall_at_least($node, 't_e_idx', 0.95, $label);
	my $new = $node->safe_psql('postgres', 'INSERT INTO t (e) SELECT vec(3000000 + ' . $round . ') RETURNING id');
	is( $node->safe_psql(
			'postgres',
			"SET enable_seqscan = off; SELECT id = $new FROM t ORDER BY e <-> vec(3000000 + $round) LIMIT 1"),
		't',
		"$label: a new row is found");
	last unless Test::More->builder->is_passing;
}

cmp_ok($told, '>', 0, "clients heard of $told commits");
my $stats = $node->safe_psql('postgres', 'SELECT rows, elements, dead_rows, unreachable, segments FROM hybrid_stats(\'t_e_idx\')');
diag("rows|elements|dead_rows|unreachable|segments: $stats");
my ($rows, undef, undef, $unreachable, $segments) = split /\|/, $stats;
cmp_ok($segments, '>', 1, 'sealing happened');
# Each crash may leave the rows of a few sessions without back-links.
cmp_ok($unreachable, '<=', 0.001 * $rows + 5 * $rounds, "$unreachable of $rows rows out of the graph's reach");

$node->safe_psql('postgres', 'VACUUM t; REINDEX INDEX t_e_idx');
sound($node, 't_e_idx', 'after REINDEX');
$node->stop;
crash_free($node, 'crash rounds');
done_testing();
