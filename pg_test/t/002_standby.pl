# A streaming standby replays build, inserts, sealing, vacuum and REINDEX byte for byte (wal_consistency_checking),
# serves the primary's answers meanwhile, and goes on as a primary.
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

my $primary = new_node(
	'primary',
	init => [ allows_streaming => 1 ],
	conf => "wal_keep_size = 2GB\nwal_consistency_checking = 'all'\nmax_wal_size = 1GB\nrestart_after_crash = on\n");
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', "hot_standby_feedback = on\nwal_receiver_status_interval = 1s\n");
$standby->start;

sub caught_up { $primary->wait_for_catchup($standby, 'replay') }

my $QUERIES = join ' UNION ALL ', map {
	"(SELECT $_ AS q, id, round((e <-> vec($_))::numeric, 5) FROM t ORDER BY e <-> vec($_) LIMIT 20)"
} map { 5000000 + 7 * $_ } 1 .. 12;

sub same_answers
{
	my ($label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	caught_up();
	my $set = 'SET enable_seqscan = off; SET hybrid.ef_search = 15;';
	is( $standby->safe_psql('postgres', "$set $QUERIES"),
		$primary->safe_psql('postgres', "$set $QUERIES"),
		"$label: the standby answers as the primary");
	sound($standby, 't_e_idx', "$label, standby");
	same_rows($standby, 't', "$label, standby");
}

$primary->safe_psql('postgres', <<'SQL');
CREATE TABLE t (id bigserial PRIMARY KEY, e vector(16));
INSERT INTO t (e) SELECT vec(n) FROM generate_series(1, 2500) n;
CREATE INDEX t_e_idx ON t USING hybrid (e) WITH (segment_rows = 1000);
SQL
same_answers('build');

$primary->safe_psql('postgres', 'INSERT INTO t (e) SELECT vec(n) FROM generate_series(3000, 5200) n');
$primary->safe_psql('postgres', 'INSERT INTO t (e) SELECT vec(n % 3) FROM generate_series(1, 300) n');
same_answers('inserts, sealing, duplicates');

$primary->safe_psql('postgres', 'DELETE FROM t WHERE id % 3 = 0; DELETE FROM t WHERE id > 4800; ');
$primary->safe_psql('postgres', 'VACUUM t');
same_answers('delete and vacuum');

$primary->safe_psql('postgres', 'UPDATE t SET e = vec(id + 700000) WHERE id % 5 = 0');
$primary->safe_psql('postgres', 'VACUUM t');
same_answers('update and vacuum');

$primary->safe_psql('postgres', 'REINDEX INDEX t_e_idx');
same_answers('REINDEX');
$primary->safe_psql('postgres', 'REINDEX INDEX CONCURRENTLY t_e_idx');
same_answers('REINDEX CONCURRENTLY');

# What only reads works on the standby, too.
my $attic = PostgreSQL::Test::Utils::tempdir;
my $manifest = $primary->safe_psql('postgres', "CREATE SERVER attic FOREIGN DATA WRAPPER hybrid_store OPTIONS (type 'directory', path '$attic');
	SELECT manifest FROM hybrid_export('t_e_idx', 'attic')");
caught_up();
is($standby->safe_psql('postgres', "SELECT manifest, ours, recorded FROM hybrid_archive_list('attic')"), "$manifest|t|t", 'an archive is listed');
is($standby->safe_psql('postgres', "SELECT bool_and(ok) FROM hybrid_archive_verify('attic', '$manifest')"), 't', 'and verified');
is($standby->safe_psql('postgres', "SELECT recall > 0 FROM hybrid_recall('t_e_idx', 5)"), 't', 'recall is measured');

# Searches and checks on the standby while the primary writes.
my $dir = PostgreSQL::Test::Utils::tempdir;
append_to_file("$dir/write.sql", <<'SQL');
\set n random(1, 1000000)
INSERT INTO t (e) SELECT vec(k) FROM generate_series(:n, :n + 3) k;
DELETE FROM t WHERE id IN (SELECT id FROM t WHERE id % 101 = :n % 101 LIMIT 3);
SQL
append_to_file("$dir/vacuum.sql", "VACUUM t;\n\\sleep 30 ms\n");
append_to_file("$dir/search.sql", <<'SQL');
\set n random(1, 1000000)
SET enable_seqscan = off;
SELECT count(*) / CASE count(*) WHEN 50 THEN 1 ELSE 0 END
FROM (SELECT id FROM t ORDER BY e <-> vec(:n) LIMIT 50) s;
SELECT count(*) FROM (SELECT id FROM t ORDER BY e <-> vec(:n) OFFSET 1000) s;
SQL
my @load;
for my $part (
	[ $primary, '-c', 4, '-f', "$dir/write.sql" ],
	[ $primary, '-c', 1, '-f', "$dir/vacuum.sql" ],
	[ $standby, '-c', 3, '-f', "$dir/search.sql" ])
{
	my ($node, @args) = @$part;
	my ($in, $out) = ('', '');
	push @load,
	  [ \$out, IPC::Run::start([ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, '-T', 6, @args, 'postgres' ],
			\$in, '>&', \$out) ];
}
my $end = time() + 5;
my ($checks, $problems) = (0, '');
while (time() < $end)
{
	$problems .= $standby->safe_psql('postgres', "SELECT * FROM hybrid_check('t_e_idx', true) LIMIT 5");
	$problems .= row_differences($standby, 't');
	$checks++;
}
for my $l (@load)
{
	$l->[1]->finish;
	unlike(${ $l->[0] }, qr/ERROR|aborted/, 'pgbench saw no error');
}
is($problems, '', "$checks checks on the standby during replay find nothing");
same_answers('after the load');

# Unlogged: the standby has only the init fork, which is all there is after promotion.
$primary->safe_psql('postgres', <<'SQL');
CREATE UNLOGGED TABLE u (id bigserial, e vector(16));
INSERT INTO u (e) SELECT vec(n) FROM generate_series(1, 500) n;
CREATE INDEX u_e_idx ON u USING hybrid (e);
CREATE UNLOGGED TABLE u2 (id bigserial, e vector(16));
CREATE INDEX u2_e_idx ON u2 USING hybrid (e);
SQL
caught_up();

# A crash of the primary empties unlogged indexes; they are usable.
kill_server($primary);
$primary->start;
sub unlogged_works
{
	my ($node, $label) = @_;
	for my $u ('u', 'u2')
	{
		is($node->safe_psql('postgres', "SELECT count(*) FROM $u"), 0, "$label: $u is empty");
		sound($node, "${u}_e_idx", "$label, $u");
		same_rows($node, $u, "$label, $u");
		$node->safe_psql('postgres', "INSERT INTO $u (e) SELECT vec(n) FROM generate_series(1, 200) n; DELETE FROM $u WHERE id % 2 = 0; VACUUM $u");
		sound($node, "${u}_e_idx", "$label, $u filled");
		same_rows($node, $u, "$label, $u filled");
	}
}
unlogged_works($primary, 'unlogged after a crash');
$primary->stop;
$primary->start;
is($primary->safe_psql('postgres', 'SELECT count(*) FROM u'), 100, 'unlogged after a clean restart: rows are kept');
sound($primary, 'u_e_idx', 'unlogged after a clean restart');
caught_up();

$primary->stop;
$standby->promote;
$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
sound($standby, 't_e_idx', 'promoted');
$standby->safe_psql('postgres', 'INSERT INTO t (e) SELECT vec(n) FROM generate_series(900000, 901500) n; DELETE FROM t WHERE id % 7 = 0');
$standby->safe_psql('postgres', 'VACUUM t');
sound($standby, 't_e_idx', 'promoted and written');
same_rows($standby, 't', 'promoted and written');
recall_at_least($standby, 't_e_idx', 0.95, 'promoted and written');
unlogged_works($standby, 'unlogged after promotion');

$standby->stop;
crash_free($_, $_->name) for $primary, $standby;
unlike(slurp_file($standby->logfile), qr/inconsistent page found/, 'no page differs after replay');
done_testing();
