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

my $ROWS = 2000;
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
	return scalar keys %strays;
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
INSERT INTO docs SELECT n, vec(n), now() - (1 + n % 100) * interval '1 day', (SELECT string_agg(md5((n * 1000 + i)::text), '') FROM generate_series(1, 120) i) FROM generate_series(1, $ROWS) n;
ALTER TABLE docs ALTER body SET STORAGE plain;
CREATE INDEX docs_e_idx ON docs USING hybrid (e, at) WITH (recent_threshold = '30 days', pending_rows = 200);
VACUUM FULL ANALYZE docs;
CREATE SERVER attic FOREIGN DATA WRAPPER hybrid_store OPTIONS (type 'directory', path '$base/attic');
CREATE SERVER walrus FOREIGN DATA WRAPPER hybrid_store OPTIONS (type 'walrus', publisher '@{[ url('walrus', '') ]}',
    aggregator '@{[ url('walrus', '') ]}', shards '10', epochs '5', epoch_seconds '86400', quilt_bytes '1MB', retries '0');
CREATE SERVER s5 FOREIGN DATA WRAPPER hybrid_store
    OPTIONS (type 's5', url '@{[ url('s5', '') ]}', api 'path', prefix 'home/hybridvec', retries '0');
SQL


# What each call is made of: the objects of an archive, besides its manifest.
my %call = (
	export => sub { "SELECT manifest FROM hybrid_export('docs_e_idx', '$_[0]')" },
	backup => sub { "SELECT manifest FROM hybrid_backup('docs', '$_[0]')" });

# Objects that were paid for, by the quilts and blobs of the ledger.
sub paid
{
	my @objects;
	for my $payment (@{ get('walrus', '/_emulator/ledger') })
	{
		my @patches = $payment->{quilt} ? map { $_->{identifier} } @{ get('walrus', "/v1/quilts/$payment->{blob}/patches") } : $payment->{blob};
		push @objects, grep { !/^manifest-/ } @patches;
	}
	return @objects;
}

# Names in a list more than once.
sub twice { my %seen; return join ' ', grep { $seen{$_}++ == 1 } @_ }

# Whether the store has done all that it was sent, after so many requests of before.
sub is_done
{
	my ($server, $had) = @_;
	my @put = grep { /^PUT / } requests($server);
	return $had + @{ get('walrus', '/_emulator/ledger') } == @put if $server eq 'walrus';
	return $http->head(url($server, $put[-1] =~ s/^PUT //r))->{success};
}

# Kills the store, and the server with it if `$both`, while a call has its request held; then nothing is visible of it.
# Returns the requests of which the store had finished.
sub killed
{
	my ($server, $sql, $method, $n, $when, $both, $label) = @_;
	my $had = grep { /^$method / } requests($server);
	hold($server, $method, $n, $when);
	my $session = session($sql);
	ok(arrived($server, $method, $had + $n + 1, $session), "$label: the store is in the middle of it");
	# What is left are bytes of the answer.
	ok(wait_until(sub { is_done($server, $had) }, 20), "$label: it is done") if $when eq 'after';
	my @done = grep { /^$method / } requests($server);
	splice @done, 0, $had;
	splice @done, $n, 1 if $when eq 'before';
	kill_emulator($server);
	kill_server($node) if $both;
	my $said = ended($session);
	start_emulator($server);
	$node->start if $both;
	return ($said, @done);
}

# Export and backup: what was stored is not sent again, and the archive is whole.
sub sent_once
{
	my ($server, $what, $n, $when, $both) = @_;
	my $label = "$server, $what, PUT $n, " . ($both ? 'both die ' : 'store dies ') . $when;
	fresh($server);
	my ($said, @done) = killed($server, $call{$what}->($server), 'PUT', $n, $when, $both, $label);
	like($said, qr/ERROR:  08006: server "$server"/, "$label: the store is told to be gone") unless $both;
	is(one("SELECT count(*) FROM hybrid_archives WHERE server = '$server'"), 0, "$label: nothing is recorded");
	my ($manifest, $objects) = split /\|/, one($call{$what}->($server) =~ s/manifest/manifest, objects/r);
	is(one("SELECT count(*) FILTER (WHERE ok), count(*) FILTER (WHERE NOT ok) FROM hybrid_archive_verify('$server', '$manifest')"),
		($objects - 1) . '|0', "$label: the next one is whole");
	if ($server eq 'walrus')
	{
		# The manifest itself, if it is a blob of its own.
		my @paid = grep { $manifest !~ m{^\Q$_\E/blob/} } paid();
		is(twice(@paid), '', "$label: no object is paid for twice");
		is(scalar @paid, $objects - 1, "$label: nor one that is not needed");
	}
	else
	{
		my @objects = grep { m{/objects/} } @done, grep { /^PUT / } requests($server);
		is(twice(@objects), '', "$label: no object is sent twice");
		is(scalar @objects, $objects - 1, "$label: and each one is");
	}
	sound($node, 'docs_e_idx', $label);
	return $manifest;
}

# Restore and import: all or nothing, and what was fetched is not fetched again.
sub fetched_once
{
	my ($server, $what, $manifest, $n, $both) = @_;
	my $label = "$server, $what, GET $n, " . ($both ? 'both die' : 'store dies');
	system('rm', '-rf', $node->data_dir . '/pg_hybrid/cache');
	my $file = one("SELECT pg_relation_filenode('docs_e_idx')");
	my $sql = $what eq 'restore' ? "SELECT * FROM hybrid_restore('$server', '$manifest', target_name => 'copy')" : "SELECT * FROM hybrid_import('docs_e_idx', '$server', '$manifest')";
	my ($said, @done) = killed($server, $sql, 'GET', $n, 'before', $both, $label);
	if ($both || $said ne '')
	{
		like($said, qr/ERROR:  (08006|58P01): server "$server"/, "$label: the store is told to be gone") unless $both;
		nothing_made($label);
		is(one("SELECT pg_relation_filenode('docs_e_idx')"), $file, "$label: the index is what it was");
	}
	else
	{
		# Rows count more than the way to them.
		is(one('SELECT count(*) FROM ((TABLE docs EXCEPT ALL TABLE copy) UNION ALL (TABLE copy EXCEPT ALL TABLE docs)) x'), 0, "$label: all rows were there");
		sound($node, 'copy_e_at_idx', $label);
		one('DROP TABLE copy');
	}
	no_temporary_files($label);
	if ($what eq 'restore') { restored($server, $manifest, $label) }
	else
	{
		is(one("$sql") =~ s/\|.*//r, $ROWS, "$label: imported");
		sound($node, 'docs_e_idx', $label);
		same_rows($node, 'docs', $label);
	}
	# The manifest came first. Of what followed, the held request and three others may have been under way; the rest is in the cache.
	my %again = map { $_ => 1 } requests($server);
	is(join(' ', grep { $again{$_} } @done[ 1 .. $n - 4 ]), '', "$label: what was there is not fetched again") if $n > 4;
}

# Rounds: the request that is held, and how.
my %exports = (walrus => [ [ 0, 'before' ], [ 0, 'after' ] ], s5 => [ [ 1, 'before' ], [ 2, 'after' ], [ 3, 'after' ] ]);
my %backups = (walrus => [ [ 0, 'before' ], [ 1, 'after' ], [ 2, 'before' ], [ 3, 'after' ] ], s5 => [ [ 0, 'before' ], [ 2, 'after' ], [ 4, 'before' ], [ 6, 'after' ] ]);
my %both = (walrus => [ [ 2, 'before' ], [ 3, 'after' ] ], s5 => [ [ 1, 'after' ], [ 6, 'before' ] ]);
my %manifest;
for my $server (qw(walrus s5))
{
	sent_once($server, 'export', @$_, 0) for @{ $exports{$server} };
	sent_once($server, 'backup', @$_, 0) for @{ $backups{$server} };
	$manifest{$server} = sent_once($server, 'backup', @$_, 1) for @{ $both{$server} };
	fetched_once($server, 'restore', $manifest{$server}, $_, 0) for 0, 6;
	fetched_once($server, 'restore', $manifest{$server}, $_, 1) for 5;
	fetched_once($server, 'import', $manifest{$server}, $_, 0) for 0, 2;
	fetched_once($server, 'import', $manifest{$server}, 3, 1);
	# CREATE INDEX never fails for an archive.
	my $create = "SET client_min_messages = warning; CREATE INDEX second ON docs USING hybrid (e, at)
		WITH (recent_threshold = '30 days', source = '$server $manifest{$server}')";
	system('rm', '-rf', $node->data_dir . '/pg_hybrid/cache');
	my ($said) = killed($server, $create, 'GET', 1, 'before', 0, "$server, CREATE INDEX");
	like($said, qr/^WARNING:  01000: index "second" is not made of an archive on server "$server"/, "$server: a WARNING");
	sound($node, 'second', "$server: and the index is built from the table");
	one('DROP INDEX second');
}

# Two sessions that archive the same at the same time pay for it once, whichever comes first.
for my $round (1 .. 5)
{
	fresh('walrus');
	my @sessions = map { session($call{$_}->('walrus')) } $round % 2 ? ('export', 'export') : ('backup', 'export');
	is(join('', map { ended($_) } @sessions), '', 'both are done');
	is(twice(paid()), '', 'no object is paid for twice');
}

# A path service loses what two write into a directory at the same time: sessions take turns, also where one is canceled.
fresh('s5');
one('CREATE TABLE other AS SELECT n AS id FROM generate_series(1, 10) n');
hold('s5', 'PUT', 0, 'before');
my $first = session("/* first */ " . $call{export}->('s5'));
ok(arrived('s5', 'PUT', 1, $first), 's5: one session writes');
my $second = session("/* second */ SELECT rows FROM hybrid_backup('other', 's5')");
my $waits = "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^/. second' AND wait_event = 'Extension'";
ok(wait_until(sub { one($waits) == 1 }, 20), 's5: another one waits');
usleep(300_000);
is(scalar(grep { /^PUT / } requests('s5')), 1, 's5: and sends nothing meanwhile');
one("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query ~ '^/. first'");
like(ended($first), qr/57014/, 's5: the first one is canceled');
is(ended($second), '', 's5: the other one goes on');
is(${ $second->{out} }, "10\n", 's5: and ends well');

# A store that is back before the session gives up: the call itself goes on.
one("ALTER SERVER $_ OPTIONS (SET retries '1')") for qw(walrus s5);
for my $server (qw(walrus s5))
{
	fresh($server);
	hold($server, 'PUT', 1, 'after');
	my $session = session($call{backup}->($server));
	ok(arrived($server, 'PUT', 2, $session), "$server: a backup is under way");
	kill_emulator($server);
	start_emulator($server);
	is(ended($session), '', "$server: it goes on when the store is back");
	is(one("SELECT bool_and(v.ok) FROM hybrid_archives a, hybrid_archive_verify('$server', a.manifest) v WHERE server = '$server'"), 't', "$server: and is whole");
	is(twice(paid()), '', 'and paid once') if $server eq 'walrus';
}

# --- kill -9 of the server during a restore ---

# Files that a crash leaves are those of relations that CREATE TABLE and CREATE INDEX began: PostgreSQL's own recovery does
# not remove them. More than one restore makes there must not be, and the next restore adds none.
my $RELATIONS = 5;
my $attic = one("SELECT manifest FROM hybrid_backup('docs', 'attic')");
my $begin = time();
one("SELECT rows FROM hybrid_restore('attic', '$attic', target_name => 'copy')");
my $length = time() - $begin;
one('DROP TABLE copy');

# Kills once `$wait` has come back.
sub server_killed
{
	my ($label, $wait) = @_;
	my $before = strays();
	my $session = session("SET gate.held = 'yes'; SELECT * FROM hybrid_restore('attic', '$attic', target_name => 'copy')");
	$wait->();
	kill_server($node);
	ended($session);
	$node->start;
	if (one("SELECT to_regclass('copy') IS NULL") eq 't') { nothing_made($label) }
	else
	{
		is(one('SELECT count(*) FROM copy'), $ROWS, "$label: it was committed, whole");
		sound($node, 'copy_e_at_idx', $label);
		one('DROP TABLE copy');
	}
	no_temporary_files($label);
	my $left = strays() - $before;
	cmp_ok($left, '<=', $RELATIONS, "$label: $left files of relations are left, which PostgreSQL leaves");
	restored('attic', $attic, $label);
	is(strays() - $before, $left, "$label: the next restore leaves none");
}

my $KILLS = $ENV{CRASH_ROUNDS} // 5;
for my $round (1 .. $KILLS)
{
	server_killed("kill $round", sub { usleep(1_000_000 * $length * $round / ($KILLS + 1)) });
}

one(<<'SQL');
CREATE FUNCTION gate() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
    IF current_setting('gate.held', true) = 'yes' THEN PERFORM pg_advisory_xact_lock_shared(hashtext(tg_event || ' ' || tg_tag)); END IF; END $$;
CREATE EVENT TRIGGER gate_start ON ddl_command_start EXECUTE FUNCTION gate();
CREATE EVENT TRIGGER gate_end ON ddl_command_end EXECUTE FUNCTION gate();
SQL
for my $gate ('ddl_command_end CREATE TABLE', 'ddl_command_start ALTER TABLE', 'ddl_command_start CREATE INDEX', 'ddl_command_end CREATE INDEX')
{
	my $holder = session("SELECT pg_advisory_lock(hashtext('$gate')), pg_sleep(600)");
	my $held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND";
	ok(wait_until(sub { one("$held granted") }, 20), "$gate: held");
	server_killed("kill at $gate", sub { wait_until(sub { one("$held NOT granted") }, 20) or die 'the restore does not come there' });
	ended($holder);
}

crash_free($node, 'crashes');
done_testing();
