# Stores behind foreign servers that never answer: cancel, statement_timeout and pg_terminate_backend reach the session at
# once, and the process ends as it should. Secrets appear in no log. A dump carries what was recorded, by whomever it is made.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use HybridVec;
use IO::Socket::INET;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

# Seconds that a session may take to notice. A loaded machine may not run a process that is awake for some 100 ms: what is
# asserted is the best of some tries.
my $LIMIT = 0.1;
my $TRIES = 5;

my $SECRET = 'hush-5e1f7a90c4';
my $KEY = '0123456789abcdef' x 4;

my $node = new_node('server', conf => "log_min_messages = debug1\nlog_statement = none\nlog_min_error_statement = panic\n");
my $db = 'postgres';

# Takes connections, and says nothing.
my $silent = IO::Socket::INET->new(Listen => 128, LocalAddr => '127.0.0.1', Proto => 'tcp') or die "no socket: $!";
my $port = $silent->sockport;
# Nobody listens there: the port was ours a moment ago.
my $closed = do { my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die; $s->sockport };

my $attic = $node->basedir . '/attic';
mkdir $attic, 0700 or die "$attic: $!";

$node->safe_psql($db, <<"SQL");
CREATE SERVER silent_s5 FOREIGN DATA WRAPPER hybrid_store OPTIONS (type 's5', url 'http://127.0.0.1:$port');
CREATE SERVER silent_walrus FOREIGN DATA WRAPPER hybrid_store
    OPTIONS (type 'walrus', aggregator 'http://127.0.0.1:$port', publisher 'http://127.0.0.1:$port');
CREATE SERVER closed FOREIGN DATA WRAPPER hybrid_store OPTIONS (type 's5', url 'http://127.0.0.1:$closed', retries '1');
CREATE SERVER attic FOREIGN DATA WRAPPER hybrid_store OPTIONS (type 'directory', path '$attic');
CREATE ROLE plain LOGIN;
GRANT USAGE ON FOREIGN SERVER silent_s5, silent_walrus, closed, attic TO plain;
SQL

# Runs `$sql`, does `$act` with the session's pid once it waits for the store, and returns the seconds from then to its
# end, with what it said.
sub interrupted
{
	my ($sql, $act) = @_;
	my ($in, $out, $err) = ("SELECT pg_backend_pid();\n", '', '');
	my $session = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', $node->connstr($db) ], \$in, '>', \$out, '2>', \$err);
	$session->pump until $out =~ /^(\d+)\n/;
	my $pid = $1;
	$in = "$sql\n\\echo ended\n\\q\n";
	$session->pump_nb;
	ok( wait_until(
			sub {
				$session->pump_nb;
				$node->safe_psql($db, "SELECT wait_event FROM pg_stat_activity WHERE pid = $pid AND state = 'active'") eq 'Extension';
			},
			20),
		'the session waits for the store');
	# Well into the request.
	usleep(100_000);
	my $start = time();
	$act->($pid);
	$session->pump while $session->pumpable && $out !~ /ended/ && $err !~ /terminating connection/;
	my $took = time() - $start;
	$session->finish;
	return ($took, $err, $pid);
}

sub best { my ($best) = sort { $a <=> $b } @_; return $best }

for my $server (qw(silent_s5 silent_walrus))
{
	my $sql = "SELECT * FROM hybrid_server_check('$server');";
	for my $case (
		[ 'cancel', sub { kill 'INT', $_[0] }, qr/57014: canceling statement due to user request/ ],
		[ 'terminate', sub { kill 'TERM', $_[0] }, qr/57P01: terminating connection due to administrator command/ ])
	{
		my ($label, $act, $said) = @$case;
		my @took;
		for (1 .. $TRIES)
		{
			my ($took, $err, $pid) = interrupted($sql, $act);
			push @took, $took;
			like($err, $said, "$server, $label: says so");
			ok(wait_until(sub { !kill 0, $pid }, 5), "$server, $label: the process is gone soon after");
			last if $took < $LIMIT;
		}
		cmp_ok(best(@took), '<', $LIMIT, sprintf '%s, %s: %.0f ms', $server, $label, 1000 * best(@took));
	}
	for my $timeout (100, 333)
	{
		my @over;
		for (1 .. $TRIES)
		{
			my ($code, $out, $err) = $node->psql($db, <<"SQL");
\\timing on
SET statement_timeout = '$timeout ms';
$sql
SQL
			like($err, qr/canceling statement due to statement timeout/, "$server: statement_timeout $timeout");
			my @times = $out =~ /Time: ([\d.]+) ms/g;
			push @over, ($times[-1] - $timeout) / 1000;
			last if $over[-1] < $LIMIT;
		}
		cmp_ok(best(@over), '<', $LIMIT, sprintf '%s: statement_timeout %d: %.0f ms over', $server, $timeout, 1000 * best(@over));
	}
}

# A session goes on after many cancels: nothing of it was left with the helpers, and they do not pile up.
my ($ended, $said, $complaints) = $node->psql(
	$db,
	"SET statement_timeout = '50ms';\n" . "SELECT hybrid_server_check('silent_s5');\n" x 40 . "RESET statement_timeout;\nSELECT 'alive';\n",
	on_error_stop => 0);
is($said, 'alive', 'a session goes on after many cancels');
is(scalar(() = $complaints =~ /canceling statement due to statement timeout/g), 40, 'each of them is a timeout');

# Stores that answer, or refuse to.
is($node->safe_psql($db, "SELECT reachable FROM hybrid_server_check('closed')"), 'f', 'nobody listens: not reachable');
is($node->safe_psql($db, "SELECT reachable, latency_ms >= 0, steps <> '{}' FROM hybrid_server_check('attic')"),
	't|t|t', 'a directory');
is(`find '$attic' -type f`, '', 'and no file is left in it');
my $ours = $node->data_dir . '/pg_hybrid';
is(sprintf('%04o', (stat $ours)[2] & 07777), '0700', 'pg_hybrid is nobody else\'s');
is(sprintf('%04o', (stat "$ours/$_")[2] & 07777), '0700', "pg_hybrid/$_ is nobody else's") for qw(receipts cache);

# Secrets: in mappings, in files, in options where they do not belong, in statements that fail.
my $file = $node->basedir . '/token';
append_to_file($file, "$SECRET-file\n");
$node->psql($db, "CREATE SERVER bad FOREIGN DATA WRAPPER hybrid_store OPTIONS (type 's5', url 'https://me:$SECRET\@s5.example.org')");
$node->psql($db, "ALTER SERVER silent_s5 OPTIONS (ADD token '$SECRET')");
$node->safe_psql($db, <<"SQL");
CREATE USER MAPPING FOR CURRENT_USER SERVER silent_s5 OPTIONS (token '$SECRET', key '$KEY');
CREATE USER MAPPING FOR CURRENT_USER SERVER silent_walrus OPTIONS (jwt_secret '$SECRET');
CREATE USER MAPPING FOR CURRENT_USER SERVER closed OPTIONS (token_file '$file');
SQL
my $shown = '';
for my $server (qw(silent_s5 silent_walrus closed))
{
	my ($code, $out, $err) = $node->psql($db, <<"SQL");
SET statement_timeout = '300ms';
SET client_min_messages = debug1;
EXPLAIN (VERBOSE) SELECT * FROM hybrid_server_check('$server');
SELECT * FROM hybrid_server_check('$server');
SELECT query FROM pg_stat_activity;
SQL
	$shown .= $out . $err;
}
unlike($shown, qr/\Q$SECRET\E|\Q$KEY\E/, 'no secret in what sessions see');
unlike(slurp_file($node->logfile), qr/\Q$SECRET\E|\Q$KEY\E/, 'no secret in the log');

# Another user has no mapping, so no secret; without USAGE no server.
my ($code, $out, $err) = $node->psql($db, "SELECT reachable FROM hybrid_server_check('closed')", extra_params => [ '-U', 'plain' ]);
is($out, 'f', 'who has USAGE may try a server');
$node->safe_psql($db, 'REVOKE USAGE ON FOREIGN SERVER closed FROM plain');
($code, $out, $err) = $node->psql($db, "SELECT reachable FROM hybrid_server_check('closed')", extra_params => [ '-U', 'plain' ]);
like($err, qr/permission denied for foreign server closed/, 'who has not may not');

# A dump by somebody who owns nothing but may connect carries both tables; it says nothing of secrets.
$node->safe_psql($db, <<'SQL');
SELECT hybrid_archive_adopt(repeat('a', 32));
INSERT INTO hybrid_archives (server, manifest, kind, set_id, system_identifier, timeline, database, table_schema, table_name,
    index_name, definition_hash, created_at, rows, objects, bytes, reused)
SELECT 'attic', 'manifest-0.cbor', 'export', set_id, system_identifier, timeline, 'postgres', 'public', 't', 't_e_idx', 'f00', now(), 1, 2, 3, 0
FROM hybrid_archive_sets;
SQL
my $dump = $node->basedir . '/dump.sql';
command_ok([ 'pg_dump', '-U', 'plain', '-f', $dump, $node->connstr($db) ], 'pg_dump by a plain user');
my $text = slurp_file($dump);
unlike($text, qr/\Q$SECRET\E|\Q$KEY\E/, 'no secret in the dump');
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init;
$copy->start;
$copy->safe_psql($db, 'CREATE ROLE plain');
command_ok([ 'psql', '-X', '-q', '-f', $dump, $copy->connstr($db) ], 'the dump is restored into another cluster');
is($copy->safe_psql($db, 'SELECT server, manifest, set_id FROM hybrid_archives'), 'attic|manifest-0.cbor|' . 'a' x 32, 'with the archives');
is( $copy->safe_psql($db, <<'SQL'), '1|f', 'their set is not of that system');
SELECT count(*), bool_or(system_identifier = (SELECT system_identifier::text FROM pg_control_system())) FROM hybrid_archive_sets
SQL
is($copy->safe_psql($db, "SELECT srvname FROM pg_foreign_server WHERE srvname = 'attic'"), 'attic', 'and with the servers');
$copy->stop;

$node->stop;
crash_free($node, 'server');
done_testing();
