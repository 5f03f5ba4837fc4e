# CREATE INDEX with little memory: temporary files instead, the same graph, and nothing left behind.
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

my $node = new_node('spill', conf => "max_wal_size = 2GB\nshared_buffers = 128MB\nlog_temp_files = 0\n");
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE base AS SELECT n, vec(n, 128) AS e FROM generate_series(1, 1500) n;
CREATE TABLE t (id bigserial, e vector(128));
INSERT INTO t (e) SELECT b.e + c.e FROM base b, (SELECT * FROM base WHERE n % 75 = 0) c;
SQL

# Of a thousand queries, as one that misses its tight cluster loses all of its rows. At 40, one in 700 does, however the
# graph was built.
my $RECALL = "SET hybrid.ef_search = 100; SELECT round(recall::numeric, 4) FROM hybrid_recall('t_e_idx', 1000, 10)";

sub build
{
	my ($memory, $more) = @_;
	my ($code, $out, $err) = $node->psql('postgres',
		"SET maintenance_work_mem = '$memory'; DROP INDEX IF EXISTS t_e_idx; CREATE INDEX t_e_idx ON t USING hybrid (e) $more");
	return ($code, $err);
}

my ($code, $said) = build('256MB', '');
is($code, 0, 'build with much memory');
unlike($said, qr/temporary/, 'without temporary files');
my $recall = $node->safe_psql('postgres', $RECALL);

($code, $said) = build('1MB', '');
is($code, 0, 'build with 1 MB');
like($said, qr/NOTICE:  hybrid index build uses temporary files: \d+ MB did not fit into maintenance_work_mem, \d+ MB would hold it/, 'says so');
my ($needed) = $said =~ /(\d+) MB would hold it/;
my $spilled = $node->safe_psql('postgres', $RECALL);
cmp_ok($spilled, '>=', $recall - 0.01, "recall $spilled, with much memory $recall");
sound($node, 't_e_idx', 'spilled');
same_rows($node, 't', 'spilled');
is(join(' ', temp_files($node)), '', 'no temporary file remains');

(undef, $said) = build(($needed // 100) . 'MB', '');
unlike($said, qr/temporary/, 'the memory that the notice names is enough');

# Many segments: each gives its temporary space back before the next one starts.
my ($in, $out, $err) = ("SET maintenance_work_mem = '1MB'; SET client_min_messages = warning; DROP INDEX t_e_idx; CREATE INDEX t_e_idx ON t USING hybrid (e) WITH (segment_rows = 2000);\n\\q\n", '', '');
my $session = IPC::Run::start([ 'psql', '-XAtq', $node->connstr('postgres') ], \$in, '>', \$out, '2>', \$err);
my $most = 0;
while ($session->pumpable)
{
	$session->pump_nb;
	my $files = () = temp_files($node);
	$most = $files if $files > $most;
	usleep(5000);
}
$session->finish;
is($err, '', 'build of many segments');
cmp_ok($most, '>', 0, 'it used temporary files');
cmp_ok($most, '<=', 2, "at most $most temporary files at a time");
is(join(' ', temp_files($node)), '', 'no temporary file remains');
sound($node, 't_e_idx', 'many segments');

# temp_file_limit
for my $limit ('100kB', '5MB')
{
	my $stderr;
	($code, undef, $stderr) = $node->psql('postgres',
		"\\set VERBOSITY verbose\nSET maintenance_work_mem = '1MB'; SET temp_file_limit = '$limit'; REINDEX INDEX t_e_idx");
	like($stderr, qr/ERROR:  53400: temporary file size exceeds temp_file_limit \(\d+kB\)/, "temp_file_limit $limit");
	is(join(' ', temp_files($node)), '', 'no temporary file remains');
}
sound($node, 't_e_idx', 'the old index is in force');

# A signal in the middle of making the file longer is not a full disk.
($in, $out, $err) = ("SELECT pg_backend_pid();\n", '', '');
$session = IPC::Run::start([ 'psql', '-XAtq', $node->connstr('postgres') ], \$in, '>', \$out, '2>', \$err);
$session->pump until $out =~ /^(\d+)\n/;
my $pid = $1;
$in = "\\echo started\nSET maintenance_work_mem = '1MB'; SET client_min_messages = warning; REINDEX INDEX t_e_idx; REINDEX INDEX t_e_idx;\n\\q\n";
$session->pump until $out =~ /started/;
while ($session->pumpable)
{
	$session->pump_nb;
	# What other backends send for sinval catch-up, and what any backend takes at any time.
	kill 'USR1', $pid;
	usleep(100);
}
$session->finish;
is($err, '', 'signals during a build that spills do no harm');

# kill -9 of the backend: the server restarts and removes the file.
$node->append_conf('postgresql.conf', 'restart_after_crash = on');
$node->reload;
($in, $out, $err) = ("SELECT pg_backend_pid();\n", '', '');
$session = IPC::Run::start([ 'psql', '-XAtq', $node->connstr('postgres') ], \$in, '>', \$out, '2>', \$err);
$session->pump until $out =~ /^(\d+)\n/;
$pid = $1;
$in = "\\echo started\nSET maintenance_work_mem = '1MB'; REINDEX INDEX t_e_idx;\n";
$session->pump until $out =~ /started/;
ok(wait_until(sub { scalar(temp_files($node)) }, 20), 'a temporary file is there');
crash_free($node, 'spill');
kill 'KILL', $pid;
eval { $session->finish };
$node->poll_query_until('postgres', 'SELECT true');
is(join(' ', temp_files($node)), '', 'after a crash: no temporary file remains');
sound($node, 't_e_idx', 'after a crash');
$node->stop;
done_testing();
