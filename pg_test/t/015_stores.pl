# Walrus and S5 by emulators over real sockets: an index and a table go there and come back; nothing is paid twice, whatever
# happens on the way; what is encrypted cannot be read without its key. The emulators are ours (crates/emulators): genuine
# ids, layouts and blobs, but no live network.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use HTTP::Tiny;
use HybridVec;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $program = $ENV{EMULATORS};
plan skip_all => 'EMULATORS does not name the program of crates/emulators' unless $program && -x $program;

my $ROWS = 4000;
my $KEY = '0123456789abcdef' x 4;
my $db = 'postgres';
my $node = new_node('stores', conf => "max_wal_size = 2GB\nhybrid.compaction_workers = 0\n");
my $http = HTTP::Tiny->new;
my @running;

# Starts an emulator; its URL.
sub emulator
{
	my (@arguments) = @_;
	my ($out, $err) = ('', '');
	my $run = IPC::Run::start([ $program, @arguments, '--port', '0' ], '<', \undef, '>', \$out, '2>', \$err);
	push @running, $run;
	$run->pump until $out =~ /\n/ || !$run->pumpable;
	$out =~ m{(http://\S+)} or die "no emulator: $err";
	return $1;
}

END { local $?; $_->kill_kill(grace => 1) for @running }

sub one { my ($sql) = @_; return $node->safe_psql($db, $sql) }

sub post
{
	my ($url, $body) = @_;
	my $answer = $http->post($url, { content => encode_json($body), headers => { 'content-type' => 'application/json' } });
	die "$url: $answer->{status} $answer->{content}" unless $answer->{success};
}

sub get { my ($url) = @_; return decode_json($http->get($url)->{content}) }

one(<<"SQL");
CREATE TABLE docs (id int PRIMARY KEY, e vector(16) NOT NULL, at timestamptz, body text);
INSERT INTO docs SELECT n, vec(n), now() - (1 + n % 100) * interval '1 day', 'secret text ' || n FROM generate_series(1, $ROWS) n;
CREATE INDEX docs_e_idx ON docs USING hybrid (e, at) WITH (recent_threshold = '30 days', pending_rows = 200);
VACUUM ANALYZE docs;
SQL

# Few shards: ids and layouts are as genuine, and quick.
my $walrus = emulator('walrus', '--shards', '10');
my $s5 = emulator('s5', '--profile', 'B');
my $portal = emulator('s5-portal', '--portal', 'dart', '--accounts', 'off');
one(<<"SQL");
CREATE SERVER walrus FOREIGN DATA WRAPPER hybrid_store
    OPTIONS (type 'walrus', publisher '$walrus', aggregator '$walrus', shards '10', epochs '5', epoch_seconds '86400');
CREATE SERVER s5 FOREIGN DATA WRAPPER hybrid_store OPTIONS (type 's5', url '$s5', api 'path', prefix 'home/hybridvec');
CREATE SERVER portal FOREIGN DATA WRAPPER hybrid_store OPTIONS (type 's5', url '$portal', api 'portal', redirect_hosts '127.0.0.1');
SQL

sub payments { return @{ get("$walrus/_emulator/ledger") } }

for my $server (qw(walrus s5 portal))
{
	is(one("SELECT reachable, CASE WHEN NOT reachable THEN steps END FROM hybrid_server_check('$server')"), 't|', "$server: reachable");
	my ($ret, $out, $err) = $node->psql($db, "SELECT manifest FROM hybrid_export('docs_e_idx', '$server')");
	is($ret, 0, "$server: exported") or diag $err;
	like($err, qr/WARNING:  what is exported to server "$server" can be read by anybody/, "$server: the warning that it is public");
	my $manifest = $out;
	is(one("SELECT bool_and(ok) FROM hybrid_archive_verify('$server', '$manifest')"), 't', "$server: every object is sound");
	my ($linked, $inserted) = split /\|/, one("SELECT * FROM hybrid_import('docs_e_idx', '$server', '$manifest')");
	is($linked + $inserted, $ROWS, "$server: imported, $linked linked");
	cmp_ok($linked, '>=', 0.95 * $ROWS, "$server: nearly all linked");
	sound($node, 'docs_e_idx', "$server: after import");
	same_rows($node, 'docs', "$server: after import");
	my $backup = one("SELECT manifest FROM hybrid_backup('docs', '$server')");
	is(one("SELECT rows FROM hybrid_restore('$server', '$backup', target_name => 'copy')"), $ROWS, "$server: restored");
	is(one('SELECT count(*) FROM ((TABLE docs EXCEPT ALL TABLE copy) UNION ALL (TABLE copy EXCEPT ALL TABLE docs)) x'), 0, "$server: the same rows");
	one('DROP TABLE copy');
	is(one("SELECT objects - reused FROM hybrid_backup('docs', '$server')"), 1, "$server: a second backup sends the manifest only");
}

# Walrus: the price that was told is the price that was paid, and nothing is paid twice.
my ($told) = split /\|/, one("SELECT cost, saving FROM hybrid_archive_cost('docs_e_idx', 'walrus')");
cmp_ok($told, '>', 0, "a price is told: $told FROST");
one("SET client_min_messages = error; SELECT * FROM hybrid_export('docs_e_idx', 'walrus')");
my $paid = scalar payments();
# The answer to a store that went through is lost: found by its id, not paid again.
one("UPDATE docs SET body = body || '!' WHERE id % 10 = 0");
post("$walrus/_emulator/faults", { path => '/v1/quilts', times => 1, kind => 'lost' });
one("SET client_min_messages = error; SELECT * FROM hybrid_backup('docs', 'walrus')");
my @ids = map { $_->{blob} } payments();
my %seen;
is(join(' ', grep { $seen{ $_ // '?' }++ } @ids), '', 'no blob was paid for twice');
cmp_ok(scalar @ids, '>', $paid, 'and something was paid');

# A cancel and a kill in the middle of an upload forget nothing that was paid.
one("UPDATE docs SET body = body || '?' WHERE id % 3 = 0");
post("$walrus/_emulator/faults", { path => '/v1/', times => 2, kind => { delay => { ms => 700 } } });
my $pid = fork();
if ($pid == 0)
{
	open STDOUT, '>', '/dev/null';
	open STDERR, '>', '/dev/null';
	exec 'psql', '-X', '-d', $node->connstr($db), '-c', "SELECT * FROM hybrid_backup('docs', 'walrus')";
}
usleep(500_000);
kill_server($node);
waitpid $pid, 0;
$node->start;
my $last = one("SET client_min_messages = error; SELECT manifest FROM hybrid_backup('docs', 'walrus')");
%seen = ();
is(join(' ', grep { $seen{ $_ // '?' }++ } map { $_->{blob} } payments()), '', 'nor after a kill');
is(one("SELECT bool_and(ok) FROM hybrid_archive_verify('walrus', '$last')"), 't', 'and the archive is whole');

# Encryption: nothing readable leaves the server, and without the key nothing comes back.
one("CREATE USER MAPPING FOR CURRENT_USER SERVER s5 OPTIONS (key '$KEY')");
my ($ret, $out, $err) = $node->psql($db, "SELECT manifest FROM hybrid_backup('docs', 's5')");
unlike($err, qr/can be read by anybody/, 'no warning with a key');
is(one("SELECT rows FROM hybrid_restore('s5', '$out', target_name => 'copy')"), $ROWS, 'restored with the key');
one('DROP TABLE copy; DROP USER MAPPING FOR CURRENT_USER SERVER s5');
my ($code, $nothing, $why) = $node->psql($db, "SELECT * FROM hybrid_restore('s5', '$out', target_name => 'copy')");
like($why, qr/key/, 'without the key it says so');
is(one("SELECT to_regclass('copy') IS NULL"), 't', 'and nothing is made');
one("CREATE USER MAPPING FOR CURRENT_USER SERVER s5 OPTIONS (key '" . ('f' x 64) . "')");
($code, $nothing, $why) = $node->psql($db, "SELECT * FROM hybrid_restore('s5', '$out', target_name => 'copy')");
like($why, qr/key/, 'nor with another');
unlike(slurp_file($node->logfile), qr/$KEY|f{64}/, 'keys are in no log');

# Faults on the way: repeated where a repeat is safe, told where not.
post("$s5/_emulator/faults", { path => '/s5/', times => 2, kind => { answer => { status => 503, content_type => 'text/plain', body => 'later', headers => [] } } });
is(one("DROP USER MAPPING FOR CURRENT_USER SERVER s5; SET client_min_messages = error; SELECT rows FROM hybrid_backup('docs', 's5')"), $ROWS, 'a burst of 503 is waited out');

# A portal lists nothing, so a prune relies on the records: also on those under another name of the server.
my $other_name = one("SET client_min_messages = error; SELECT manifest FROM hybrid_export('docs_e_idx', 'portal')");
one('ALTER SERVER portal RENAME TO renamed');
one("SET client_min_messages = error; SELECT * FROM hybrid_export('docs_e_idx', 'renamed')");
isnt(one("SET client_min_messages = error; SELECT count(*) FROM hybrid_archive_prune('renamed', '0', 0) WHERE removed"), 0, 'archives are removed');
is(one("SELECT bool_and(ok) FROM hybrid_archive_verify('renamed', '$other_name')"), 't', 'and no object of one that stays');
($ret, $out, $err) = $node->psql($db, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM hybrid_archive_prune('renamed', '0', 0)");
like($err, qr/this transaction does not see the latest ones/, 'a prune sees all that was recorded');

crash_free($node, 'stores');
done_testing();
