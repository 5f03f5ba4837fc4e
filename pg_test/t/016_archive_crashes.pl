# Server, store, or both die at any moment of an export, backup, restore or import: nothing is half-visible, nothing is lost,
# and the next run sends, pays and fetches only what is missing. Moments are not left to the clock: an emulator holds the
# n-th request (before or after it has done it), an event trigger holds a restore at a statement. Only kills of a restore
# from a directory are spread over its measured time.
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
use Time::HiRes qw(usleep time);

my $program = $ENV{EMULATORS};
plan skip_all => 'EMULATORS does not name the program of crates/emulators' unless $program && -x $program;

my $ROWS = 3000;
my $db = 'postgres';
my $node = new_node('crashes', conf => "max_wal_size = 2GB\nhybrid.compaction_workers = 0\nclient_min_messages = error\n");
my $http = HTTP::Tiny->new(timeout => 20);
my $base = $node->basedir;

sub one { my ($sql) = @_; return $node->safe_psql($db, $sql) }

# --- emulators that die and come back with what they had ---

my %arguments = (walrus => [ 'walrus', '--shards', '10' ], s5 => [ 's5', '--profile', 'B' ]);
my (%run, %port);

sub start_emulator
{
	my ($name) = @_;
	my ($out, $err) = ('', '');
	my @arguments = (@{ $arguments{$name} }, '--port', $port{$name} // 0, '--state', "$base/state");
	$run{$name} = IPC::Run::start([ $program, @arguments ], '<', \undef, '>', \$out, '2>', \$err);
	$run{$name}->pump until $out =~ /\n/ || !$run{$name}->pumpable;
	$out =~ m{http://127\.0\.0\.1:(\d+)} or die "no emulator: $err";
	$port{$name} = $1;
}

sub kill_emulator
{
	my ($name) = @_;
	my $run = delete $run{$name} or return;
	$run->signal('KILL');
	eval { $run->finish };
}

END { local $?; kill_emulator($_) for keys %run }

sub url { my ($name, $path) = @_; return "http://127.0.0.1:$port{$name}$path" }

sub get { my ($name, $path) = @_; return decode_json($http->get(url($name, $path))->{content}) }

# Requests since the emulator started, as `PUT /path`, without those for its status.
sub requests { my ($name) = @_; return map { "$_->{method} " . $_->{path} =~ s/\?.*//r } @{ get($name, '/_emulator/requests') } }

# Holds a request after `$n` others of this method: before it is done, or when it is done and nobody has been told.
sub hold
{
	my ($name, $method, $n, $when) = @_;
	my $kind = $when eq 'before' ? 'stall' : { trickle => { piece => 1, pause_ms => 60_000 } };
	my $fault = { method => $method, path => '/', after => $n, times => 1, kind => $kind };
	my $answer = $http->post(url($name, '/_emulator/faults'), { content => encode_json($fault) });
	die "fault: $answer->{status}" unless $answer->{success};
}

# An empty store, of which the database knows nothing.
sub fresh
{
	my ($name) = @_;
	kill_emulator($name);
	system('rm', '-rf', "$base/state/$name", map { $node->data_dir . "/pg_hybrid/$_" } qw(receipts cache));
	mkdir "$base/state";
	start_emulator($name);
	one("DELETE FROM hybrid_archives WHERE server = '$name'");
}

# --- sessions ---

sub session
{
	my ($sql) = @_;
	my ($out, $err) = ('', '');
	my $run = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr($db), '-c', $sql ],
		'<', \undef, '>', \$out, '2>', \$err);
	return { run => $run, out => \$out, err => \$err };
}

# What it said; of a session that lives it waits for the end.
sub ended
{
	my ($session) = @_;
	eval { $session->{run}->finish };
	return ${ $session->{err} };
}

# Waits until the emulator has got `$n` requests of this method since it had `$before`; false if the session ended before.
sub arrived
{
	my ($name, $method, $n, $session) = @_;
	my $there;
	my $over = 0;
	wait_until(
		sub {
			$session->{run}->pump_nb;
			# A session that is over before the look has made all its requests.
			$over = !$session->{run}->pumpable;
			$there = $n <= grep { /^$method / } requests($name);
			return $there || $over;
		},
		30) or die "neither a request nor an end: ${ $session->{err} }";
	return $there;
}

# --- what must hold ---

# Files of relations in the database's directory of which no relation knows.
sub strays
{
	my %known = map { $_ => 1 } split /\n/, one('CHECKPOINT; SELECT pg_relation_filenode(oid) FROM pg_class WHERE pg_relation_filenode(oid) IS NOT NULL');
	my $directory = $node->data_dir . '/base/' . one("SELECT oid FROM pg_database WHERE datname = '$db'");
	opendir my $files, $directory or die "$directory: $!";
	my %strays = map { $_ => 1 } grep { !$known{$_} } map { /^(\d+)(?:_\w+)?(?:\.\d+)?$/ && -s "$directory/$_" ? $1 : () } readdir $files;
	return sort keys %strays;
}

sub no_temporary_files
{
	my ($label) = @_;
	is(join(' ', temp_files($node)), '', "$label: no temporary file");
}

# The table is not there, nor anything that a restore makes.
sub nothing_made
{
	my ($label) = @_;
	is(one("SELECT count(*) FROM pg_class WHERE relname ~ '^copy'"), 0, "$label: nothing of the table is visible");
}

my $QUERIES = <<'SQL';
SET enable_seqscan = off; SET enable_sort = off;
SELECT md5(string_agg(q || ':' || (SELECT string_agg(id::text, ',') FROM (SELECT id FROM TABLE_NAME ORDER BY e <-> vec(q * 31 + 5) LIMIT 10) s), ' ' ORDER BY q))
FROM generate_series(1, 25) q
SQL
sub answers { my ($table) = @_; return one($QUERIES =~ s/TABLE_NAME/$table/r) }

# Restores, compares rows and answers with what was backed up, and drops the copy.
my $answers;
sub restored
{
	my ($server, $manifest, $label) = @_;
	is(one("SELECT rows, indexes, inserted FROM hybrid_restore('$server', '$manifest', target_name => 'copy')"), "$ROWS|1|0", "$label: restored");
	is(one('SELECT count(*) FROM ((TABLE docs EXCEPT ALL TABLE copy) UNION ALL (TABLE copy EXCEPT ALL TABLE docs)) x'), 0, "$label: the same rows");
	$answers //= answers('copy');
	is(answers('copy'), $answers, "$label: the same answers");
	sound($node, 'copy_e_at_idx', $label);
	one('DROP TABLE copy');
}

start_emulator($_) for qw(walrus s5);
mkdir "$base/attic", 0700;
# Small quilts, so that there are several. No repeats, so that a dead store is told of soon.
one(<<"SQL");
CREATE TABLE docs (id int PRIMARY KEY, e vector(16) NOT NULL, at timestamptz, body text);
INSERT INTO docs SELECT n, vec(n), now() - (1 + n % 100) * interval '1 day', repeat(md5(n::text), 150) FROM generate_series(1, $ROWS) n;
ALTER TABLE docs ALTER body SET STORAGE plain;
CREATE INDEX docs_e_idx ON docs USING hybrid (e, at) WITH (recent_threshold = '30 days', pending_rows = 200);
VACUUM FULL ANALYZE docs;
CREATE SERVER attic FOREIGN DATA WRAPPER hybrid_store OPTIONS (type 'directory', path '$base/attic');
CREATE SERVER walrus FOREIGN DATA WRAPPER hybrid_store OPTIONS (type 'walrus', publisher '@{[ url('walrus', '') ]}',
    aggregator '@{[ url('walrus', '') ]}', shards '10', epochs '5', epoch_seconds '86400', quilt_bytes '64kB', retries '0');
CREATE SERVER s5 FOREIGN DATA WRAPPER hybrid_store
    OPTIONS (type 's5', url '@{[ url('s5', '') ]}', api 'path', prefix 'home/hybridvec', retries '0');
SQL

my %backup;
$backup{attic} = one("SELECT manifest FROM hybrid_backup('docs', 'attic')");
restored('attic', $backup{attic}, 'attic');
my $time = time();
for my $server (qw(walrus s5)) {
  fresh($server);
  for my $call ("SELECT manifest FROM hybrid_export('docs_e_idx', '$server')","SELECT manifest FROM hybrid_backup('docs', '$server')") {
    my $n = requests($server); my $m = one($call);
    my @r = requests($server); diag "$call ", join "\n", @r[$n..$#r];
    if ($call =~ /backup/) { $n = requests($server); restored($server, $m, $server);@r = requests($server); diag "restore", join "\n", @r[$n..$#r];}
  }
}
diag time()-$time;
done_testing();
