# A base backup taken under load, recovered to a restore point and to a time, agrees with the table at that point.
# pg_dump keeps definitions and options.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use HybridVec;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_node('main', init => [ allows_streaming => 1, has_archiving => 1 ]);
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE t (id bigserial PRIMARY KEY, e vector(16));
INSERT INTO t (e) SELECT vec(n) FROM generate_series(1, 2000) n;
CREATE INDEX t_e_idx ON t USING hybrid (e) WITH (segment_rows = 1000);
SQL

my $dir = PostgreSQL::Test::Utils::tempdir;
append_to_file("$dir/write.sql", <<'SQL');
\set n random(1, 1000000)
INSERT INTO t (e) SELECT vec(k % 500000) FROM generate_series(:n, :n + 3) k;
DELETE FROM t WHERE id IN (SELECT id FROM t WHERE id % 101 = :n % 101 LIMIT 3);
SQL
append_to_file("$dir/vacuum.sql", "VACUUM t;\n\\sleep 50 ms\n");
my @load;
for my $args ([ '-c', 4, '-f', "$dir/write.sql" ], [ '-c', 1, '-f', "$dir/vacuum.sql" ])
{
	my ($in, $out) = ('', '');
	push @load,
	  [ \$out, IPC::Run::start([ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, '-T', 5, @$args, 'postgres' ],
			\$in, '>&', \$out) ];
}
usleep(700_000);
$node->backup('under_load');
usleep(700_000);

# What the table held at a moment, as its own content says: statements before the point are in, later ones are not.
$node->safe_psql('postgres', "SELECT pg_create_restore_point('here')");
usleep(400_000);
my $time = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
$_->[1]->finish for @load;
unlike(${ $_->[0] }, qr/ERROR|aborted/, 'pgbench saw no error') for @load;
sound($node, 't_e_idx', 'after the load');
same_rows($node, 't', 'after the load');
$node->safe_psql('postgres', "CREATE TABLE later (); SELECT pg_create_restore_point('end'); SELECT pg_switch_wal()");
my $rows = $node->safe_psql('postgres', 'SELECT count(*), sum(id) FROM t');

for my $target (
	[ 'restore point', "recovery_target_name = 'here'" ],
	[ 'time',          "recovery_target_time = '$time'" ],
	[ 'end',           "recovery_target_name = 'end'" ])
{
	my ($name, $setting) = @$target;
	my $restored = PostgreSQL::Test::Cluster->new("to $name" =~ s/ /_/gr);
	$restored->init_from_backup($node, 'under_load', has_restoring => 1, standby => 0);
	$restored->append_conf('postgresql.conf', "$setting\nrecovery_target_action = 'promote'\narchive_mode = off\n");
	$restored->start;
	$restored->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
	my $label = "recovered to $name";
	sound($restored, 't_e_idx', $label);
	same_rows($restored, 't', $label);
	recall_at_least($restored, 't_e_idx', 0.95, $label);
	is($restored->safe_psql('postgres', "SELECT to_regclass('later') IS NULL"), $name eq 'end' ? 'f' : 't', "$label and no further");
	is($restored->safe_psql('postgres', 'SELECT count(*), sum(id) FROM t'), $rows, "$label: the rows of then") if $name eq 'end';
	$restored->safe_psql('postgres', 'INSERT INTO t (e) SELECT vec(n) FROM generate_series(900000, 901100) n; DELETE FROM t WHERE id % 7 = 0');
	$restored->safe_psql('postgres', 'VACUUM t');
	sound($restored, 't_e_idx', "$label and written");
	same_rows($restored, 't', "$label and written");
	$restored->stop;
	crash_free($restored, $label);
}

# pg_dump and pg_restore: definitions, options and operator classes survive.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE items (id int, e vector(8), f vector, kind text);
INSERT INTO items SELECT n, vec(n, 8), vec(n, 5), n % 3 FROM generate_series(1, 300) n;
CREATE INDEX ON items USING hybrid (e vector_cosine_ops)
    WITH (m = 12, ef_construction = 90, segment_rows = 5000, recent_rows = 70000, pending_rows = 0, lists = 7,
          ef_search = 77, probes = 9, rerank = f16, recent_threshold = '14 days', partition_interval = '1 week',
          auto_compact = off);
CREATE INDEX ON items USING hybrid ((f::vector(5)) vector_l1_ops) WHERE kind = '1';
SQL
my $definitions = "SELECT indexdef FROM pg_indexes WHERE tablename IN ('t', 'items') AND indexdef ~ 'hybrid' ORDER BY 1";
my $before = $node->safe_psql('postgres', $definitions);
like($before, qr/rerank='?f16'?/, 'the definition shows the options');
for my $format ('custom', 'directory')
{
	$node->command_ok([ 'pg_dump', '-F', $format, '-f', "$dir/dump.$format", $node->connstr('postgres') ], "pg_dump $format");
	$node->safe_psql('postgres', "CREATE DATABASE $format");
	$node->command_ok([ 'pg_restore', '--exit-on-error', '-j', 2, '-d', $node->connstr($format), "$dir/dump.$format" ],
		"pg_restore $format");
	is($node->safe_psql($format, $definitions), $before, "$format: index definitions survive");
	is($node->safe_psql($format, "SELECT * FROM unnest(ARRAY['t_e_idx', 'items_e_idx', 'items_f_idx']::regclass[]) i, hybrid_check(i, true)"),
		'', "$format: indexes are sound");
	is( $node->safe_psql($format, 'SELECT count(*), sum(id) FROM t'), $rows, "$format: rows survive");
}

$node->stop;
crash_free($node, 'main');
done_testing();
