# wal_level = minimal: a new index is not logged but synced at commit, or logged whole where it is small
# (wal_skip_threshold). A crash right after the commit must find it complete.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use HybridVec;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('minimal', conf => "wal_level = minimal\nmax_wal_senders = 0\n");
$node->safe_psql('postgres', 'CREATE TABLE source AS SELECT n::int AS id, vec(n)::vector(16) AS e FROM generate_series(1, 2500) n');
my $file = PostgreSQL::Test::Utils::tempdir . '/rows';
$node->safe_psql('postgres', "COPY source TO '$file'");

my $WITH = 'WITH (segment_rows = 1000)';

sub crash_and_look
{
	my ($label, $sql, $rows) = @_;
	$node->safe_psql('postgres', $sql);
	kill_server($node);
	$node->start;
	is($node->safe_psql('postgres', 'SELECT count(*) FROM t'), $rows, "$label: the rows are there");
	sound($node, 't_e_idx', $label);
	same_rows($node, 't', $label);
	recall_at_least($node, 't_e_idx', 0.95, $label);
	$node->safe_psql('postgres', 'INSERT INTO t SELECT n, vec(n) FROM generate_series(10001, 10020) n');
	kill_server($node);
	$node->start;
	sound($node, 't_e_idx', "$label, 20 rows and a crash later");
	same_rows($node, 't', "$label, 20 rows and a crash later");
	$node->safe_psql('postgres', 'DROP TABLE t');
}

# fsync is off: the kernel outlives a kill -9, so what was written is there.
for my $threshold ('0', '64GB')
{
	my $set = "SET wal_skip_threshold = '$threshold';";
	crash_and_look("existing table, wal_skip_threshold $threshold",
		"$set CREATE TABLE t AS TABLE source; CREATE INDEX t_e_idx ON t USING hybrid (e) $WITH", 2500);
	crash_and_look("one transaction, wal_skip_threshold $threshold", <<"SQL", 2500);
$set BEGIN;
CREATE TABLE t (id int, e vector(16));
COPY t FROM '$file';
CREATE INDEX t_e_idx ON t USING hybrid (e) $WITH;
COMMIT;
SQL
	crash_and_look("index before the rows, wal_skip_threshold $threshold", <<"SQL", 2500);
$set BEGIN;
CREATE TABLE t (id int, e vector(16));
CREATE INDEX t_e_idx ON t USING hybrid (e) $WITH;
COPY t FROM '$file';
COMMIT;
SQL
	crash_and_look("truncated and filled again, wal_skip_threshold $threshold", <<"SQL", 1500);
$set CREATE TABLE t (id int, e vector(16));
CREATE INDEX t_e_idx ON t USING hybrid (e) $WITH;
COPY t FROM '$file';
BEGIN;
TRUNCATE t;
INSERT INTO t SELECT id, e FROM source WHERE id <= 1500;
SAVEPOINT a;
REINDEX INDEX t_e_idx;
ROLLBACK TO a;
COMMIT;
SQL
}

# An index that came and went with its transaction leaves nothing to recover.
$node->safe_psql('postgres', "CREATE TABLE t AS TABLE source; BEGIN; CREATE INDEX t_e_idx ON t USING hybrid (e); ROLLBACK");
kill_server($node);
$node->start;
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_class WHERE relname = 't_e_idx'"), 0, 'rolled back: no index');

$node->stop;
crash_free($node, 'wal_level minimal');
done_testing();
