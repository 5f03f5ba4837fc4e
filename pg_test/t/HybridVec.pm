# What the tests of this folder share: servers with the extension, rows that are worth searching, and the questions
# that an index must answer right after anything.
package HybridVec;

use strict;
use warnings;
use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

# pgrx adds a backtrace to the DETAIL of errors if this is set.
delete $ENV{RUST_BACKTRACE};

our @EXPORT = qw(new_node sound row_differences same_rows recall_at_least kill_server temp_files crash_free wait_until
  session_pid server_children leaked_pages workers);

# Rows: 40 clusters in `dims` dimensions, from hashes of the number, so that every run has the same ones.
our $FUNCTIONS = <<'SQL';
CREATE EXTENSION hybridvec;
CREATE FUNCTION vec(n bigint, dims int DEFAULT 16) RETURNS vector IMMUTABLE PARALLEL SAFE LANGUAGE sql AS $$
    SELECT array_agg(((hashint8extended(n % 40 * 100000 + i, 7) & 65535)
                      + 0.5 * (hashint8extended(n * 100000 + i, 11) & 65535))::real / 65535 ORDER BY i)::vector
    FROM generate_series(1, dims) i
$$;
-- Whether an index-ordered scan shows what a sequential scan shows. A NULL query vector makes the index return every
-- row it has, so nothing may be missing, twice or too much.
CREATE FUNCTION index_minus_table(tab regclass) RETURNS text LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    by_index int[];
    by_table int[];
    line text;
    plan text = '';
BEGIN
    FOR line IN EXECUTE format('EXPLAIN SELECT id FROM %s ORDER BY e <-> (SELECT NULL::vector)', tab) LOOP
        plan := plan || line;
    END LOOP;
    IF plan !~ 'Index Scan' THEN
        RETURN 'no index scan: ' || plan;
    END IF;
    EXECUTE format('SELECT array_agg(id) FROM (SELECT id FROM %s ORDER BY e <-> (SELECT NULL::vector)) s', tab) INTO by_index;
    SET LOCAL enable_seqscan = on;
    SET LOCAL enable_indexscan = off;
    EXECUTE format('SELECT array_agg(id) FROM %s WHERE e IS NOT NULL', tab) INTO by_table;
    RETURN (SELECT string_agg(format('id %s: %s in the index, %s in the table', id, i, t), '; ')
            FROM (SELECT id, count(*) FILTER (WHERE w = 'i') AS i, count(*) FILTER (WHERE w = 't') AS t
                  FROM (SELECT unnest(by_index) AS id, 'i' AS w UNION ALL SELECT unnest(by_table), 't') u
                  GROUP BY id) c
            WHERE i <> t);
END $$;
SQL

# A server with the extension. Parameters: init => [...] for init(), conf => settings, start => 0 to leave it stopped.
sub new_node
{
	my ($name, %p) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(extra => $p{initdb} // ['--data-checksums'], @{ $p{init} // [] });
	$node->append_conf('postgresql.conf', <<"CONF");
log_statement = none
log_min_messages = warning
shared_buffers = 32MB
max_connections = 50
autovacuum = off
# LLVM compiles for some 200 ms without looking at interrupts.
jit = off
full_page_writes = on
max_parallel_workers_per_gather = 0
@{[ $p{conf} // '' ]}
CONF
	return $node if defined $p{start} && !$p{start};
	$node->start;
	$node->safe_psql('postgres', $FUNCTIONS);
	return $node;
}

# hybrid_check finds nothing.
sub sound
{
	my ($node, $index, $label, $heap) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$heap //= 'true';
	is( $node->safe_psql(
			'postgres', "SELECT * FROM hybrid_check('$index', $heap) LIMIT 20"),
		'',
		"$label: hybrid_check('$index', $heap) finds nothing");
}

# Rows that index and table do not both show, under one snapshot.
sub row_differences
{
	my ($node, $table) = @_;
	return $node->safe_psql('postgres',
		"BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT left(index_minus_table('$table'), 1000); COMMIT");
}

# The index shows each row of the table (columns id, e) once and nothing else.
sub same_rows
{
	my ($node, $table, $label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(row_differences($node, $table), '', "$label: index and table have the same rows");
}

# Segments of 1000 rows are read whole from ef_search 16 up (crates/ann/src/hnsw/scan.rs); 15 walks their graphs.
sub recall_at_least
{
	my ($node, $index, $least, $label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $recall = $node->safe_psql('postgres',
		"SET hybrid.ef_search = 15; SELECT round(recall::numeric, 4) FROM hybrid_recall('$index', 30, 10)");
	cmp_ok($recall, '>=', $least, "$label: recall $recall");
	return $recall;
}

# Pages of an index that are neither of a listed segment, nor free, nor its metapage, directory or history.
sub leaked_pages
{
	my ($node, $index) = @_;
	return $node->safe_psql('postgres', <<"SQL");
SELECT count(*) FILTER (WHERE kind NOT IN ('meta', 'directory', 'history', 'free', 'zero')
                        AND segment NOT IN (SELECT id FROM hybrid_segments('$index')))
    + greatest(count(*) FILTER (WHERE kind = 'directory') - 1, 0)
FROM generate_series(0, pg_relation_size('$index') / 8192 - 1) b, hybrid_page('$index', b)
SQL
}

# Pids of compaction workers of a database.
sub workers
{
	my ($node, $database) = @_;
	return split /\n/, $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'hybridvec compaction' AND datname = '$database'");
}

# Processes of the server, the postmaster not included.
sub server_children
{
	my ($postmaster) = @_;
	my @children;
	for my $stat (glob '/proc/[0-9]*/stat')
	{
		open my $file, '<', $stat or next;
		my $line = <$file> // next;
		push @children, $1 if $line =~ /^(\d+) \(.*\) \S (\d+)/ && $2 == $postmaster;
	}
	return @children;
}

# kill -9 of the postmaster and all its children at one moment: a power failure, as far as processes can tell.
sub kill_server
{
	my ($node) = @_;
	my $postmaster = $node->{_pid};
	# Stopped, it cannot start further ones while we look for its children.
	kill 'STOP', $postmaster;
	my @children = server_children($postmaster);
	kill 'KILL', @children, $postmaster;
	$node->{_pid} = undef;
	wait_until(sub { !grep { runs($_) } $postmaster, @children }, 30)
	  or die "the server's processes did not go";
	# Lock files name a process; until init has reaped it a new server would take it for a living one.
	unlink $node->data_dir . '/postmaster.pid', $node->host . '/.s.PGSQL.' . $node->port . '.lock';
}

# Whether a process exists and is not a zombie.
sub runs
{
	my ($pid) = @_;
	open my $file, '<', "/proc/$pid/stat" or return 0;
	my $line = <$file> // return 0;
	return $line !~ /^\d+ \(.*\) [ZX]/;
}

sub wait_until
{
	my ($happened, $seconds) = @_;
	my $end = time() + $seconds;
	while (time() < $end)
	{
		return 1 if $happened->();
		usleep(2000);
	}
	return 0;
}

# Names of temporary files.
sub temp_files
{
	my ($node) = @_;
	return map { s!.*/!!r } glob $node->data_dir . '/base/pgsql_tmp/*';
}

# The log tells of no crash, assertion or panic.
sub crash_free
{
	my ($node, $label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @bad = grep { /terminated by signal|PANIC|TRAP:|panicked|XX000|all server processes terminated/ } split /\n/,
	  slurp_file($node->logfile);
	is(join("\n", @bad[ 0 .. ($#bad > 9 ? 9 : $#bad) ]), '', "$label: no crash in the log");
}

1;
