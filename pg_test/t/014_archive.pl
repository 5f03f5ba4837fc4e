# Archives in a directory: export, import, restore by pg_restore, by CREATE INDEX and from a backup on another server;
# damaged archives; rights; pruning; a kill at any time.
use strict;
use warnings;
use File::Find;
use FindBin;
use lib $FindBin::Bin;
use HybridVec;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $ROWS = 12_000;
my $KILLS = $ENV{CRASH_ROUNDS} // 6;
my $db = 'postgres';
my $conf = "max_wal_size = 2GB\nhybrid.compaction_workers = 0\n";
my $node = new_node('archive', conf => $conf);
my $other = new_node('archive_other', conf => $conf);

my $attic = $node->basedir . '/attic';
mkdir $attic, 0700 or die "$attic: $!";
my $server = "CREATE SERVER attic FOREIGN DATA WRAPPER hybrid_store OPTIONS (type 'directory', path '$attic')";
$node->safe_psql($db, $server);

# Rows of a hundred days, of which the last thirty are recent: graphs and partitions.
$node->safe_psql($db, <<"SQL");
CREATE TABLE docs (id int PRIMARY KEY, e vector(16) NOT NULL, at timestamptz, tenant int DEFAULT 7, body text);
INSERT INTO docs SELECT n, vec(n), now() - (1 + n % 100) * interval '1 day', n % 5, 'text ' || n FROM generate_series(1, $ROWS) n;
CREATE INDEX docs_e_idx ON docs USING hybrid (e, at) WITH (recent_threshold = '30 days', pending_rows = 200);
VACUUM ANALYZE docs;
SQL

sub one { my ($n, $sql) = @_; return $n->safe_psql($db, $sql) }

# What an index answers: ids of the nearest ten, for some queries and windows.
sub answers
{
	my ($n, $table) = @_;
	return one($n, <<"SQL");
SET enable_seqscan = off; SET enable_sort = off;
SELECT string_agg(q || ':' || (SELECT string_agg(id::text, ',') FROM (SELECT id FROM $table ORDER BY e <-> vec(q * 31 + 5) LIMIT 10) s), ' ' ORDER BY q)
FROM generate_series(1, 25) q;
SELECT string_agg(q || ':' || (SELECT string_agg(id::text, ',') FROM (SELECT id FROM $table
    WHERE at < (SELECT max(at) FROM $table) - interval '40 days' ORDER BY e <-> vec(q * 37 + 5) LIMIT 10) s), ' ' ORDER BY q)
FROM generate_series(1, 25) q;
SQL
}

# The share of `before` that is in `after`.
sub overlap
{
	my ($before, $after) = @_;
	my %seen = map { $_ => 1 } map { my ($q, $ids) = split /:/; map { "$q:$_" } split /,/, $ids } split /\s+/, $after;
	my @all = map { my ($q, $ids) = split /:/; map { "$q:$_" } split /,/, $ids } split /\s+/, $before;
	return (grep { $seen{$_} } @all) / @all;
}

sub stored_files
{
	my @files;
	find(sub { push @files, $File::Find::name if -f && $File::Find::name =~ m{/(objects|manifests)/} }, $attic);
	return @files;
}

sub stored_bytes { my $sum = 0; $sum += -s $_ for stored_files(); return $sum }

# Export, and what it says.
my $before = answers($node, 'docs');
my ($manifest, $objects, $bytes, $reused, $rows) = split /\|/, one($node, "SELECT manifest, objects, bytes, reused, rows FROM hybrid_export('docs_e_idx', 'attic')");
like($manifest, qr/manifest-[0-9a-f]{32}\.cbor$/, 'a reference with the hash of the manifest');
is($rows, $ROWS, 'every row is archived');
is($reused, 0, 'nothing was there before');
is(scalar(stored_files()), $objects, "$objects objects are in the directory");
is(stored_bytes(), $bytes, "as many bytes as it says: $bytes");
is(one($node, "SELECT count(*) FROM hybrid_archives WHERE manifest = '$manifest' AND rows = $ROWS AND index_name = 'docs_e_idx'"), 1, 'it is recorded');
is(one($node, "SELECT count(*) FILTER (WHERE ok), count(*) FILTER (WHERE NOT ok) FROM hybrid_archive_verify('attic', '$manifest')"),
	($objects - 1) . '|0', 'every object is sound');
is(one($node, "SELECT kind, source, rows, ours, recorded FROM hybrid_archive_list('attic')"),
	"export|postgres.public.docs.docs_e_idx|$ROWS|t|t", 'it is listed');

# Once more: only the manifest is new.
my $again = one($node, "SELECT objects, reused FROM hybrid_export('docs_e_idx', 'attic')");
is($again, "$objects|" . ($objects - 1), 'nothing but the manifest is sent again');

# After a change of one row in a hundred no more than a twentieth is sent.
one($node, "DELETE FROM docs WHERE id % 200 = 0; VACUUM docs;
	INSERT INTO docs SELECT n, vec(n), now() - interval '1 day', 1, 'late ' || n FROM generate_series($ROWS + 1, $ROWS + $ROWS / 200) n");
my $had = stored_bytes();
my $later = one($node, "SELECT manifest FROM hybrid_export('docs_e_idx', 'attic')");
my $sent = stored_bytes() - $had;
cmp_ok($sent, '<', $bytes / 20, "$sent bytes were sent after a change of 1 %, of $bytes");

# Import into the index itself: the same rows, the same answers.
$before = answers($node, 'docs');
my ($linked, $inserted, $dropped) = split /\|/, one($node, "SELECT * FROM hybrid_import('docs_e_idx', 'attic', '$later')");
is($linked + $inserted, one($node, 'SELECT count(*) FROM docs'), "every row came back: $linked linked, $inserted inserted, $dropped dropped");
cmp_ok($linked, '>', 0.97 * $ROWS, 'nearly all were linked');
sound($node, 'docs_e_idx', 'after import');
same_rows($node, 'docs', 'after import');
cmp_ok(overlap($before, answers($node, 'docs')), '>=', 0.99, 'the answers are those of before');

# It is a transaction as any other.
one($node, "BEGIN; SELECT * FROM hybrid_import('docs_e_idx', 'attic', '$manifest'); ROLLBACK");
sound($node, 'docs_e_idx', 'after a rollback');

# CREATE INDEX takes an archive; REINDEX does not.
one($node, 'DROP INDEX docs_e_idx');
my ($ret, $out, $err) = $node->psql($db, "CREATE INDEX docs_e_idx ON docs USING hybrid (e, at)
	WITH (recent_threshold = '30 days', pending_rows = 200, source = 'attic $later')");
is($ret, 0, 'CREATE INDEX .. WITH (source)');
like($err, qr/INFO:  index "docs_e_idx": $linked rows linked as archived, $inserted inserted/, 'it says what it linked');
sound($node, 'docs_e_idx', 'after CREATE INDEX');
same_rows($node, 'docs', 'after CREATE INDEX');
cmp_ok(overlap($before, answers($node, 'docs')), '>=', 0.99, 'the answers are those of before');
($ret, $out, $err) = $node->psql($db, 'REINDEX INDEX docs_e_idx');
unlike($err, qr/linked/, 'REINDEX builds from the table');

# After every row has moved.
one($node, "UPDATE docs SET tenant = tenant + 1; DELETE FROM docs WHERE id % 50 = 1; VACUUM FULL docs");
($linked, $inserted) = split /\|/, one($node, "SELECT * FROM hybrid_import('docs_e_idx', 'attic', '$later')");
is($linked + $inserted, one($node, 'SELECT count(*) FROM docs'), "after UPDATE, DELETE and VACUUM FULL: $linked linked, $inserted inserted");
cmp_ok($linked, '>', 0.95 * $ROWS, 'nearly all were linked');
sound($node, 'docs_e_idx', 'after every row moved');
same_rows($node, 'docs', 'after every row moved');

# By pg_dump and pg_restore, under hybrid.import_from.
one($node, "ALTER INDEX docs_e_idx RESET (source); SELECT * FROM hybrid_export('docs_e_idx', 'attic')");
$before = answers($node, 'docs');
my $dump = $node->basedir . '/dump';
command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr($db) ], 'pg_dump');
one($other, 'DROP EXTENSION hybridvec CASCADE');
one($other, 'DROP FUNCTION IF EXISTS index_minus_table');
{
	local $ENV{PGOPTIONS} = '-c hybrid.import_from=attic';
	my ($stdout, $stderr) = run_command([ 'pg_restore', '--verbose', '-d', $other->connstr($db), $dump ]);
	like($stderr, qr/index "docs_e_idx": \d+ rows linked as archived, 0 inserted/, 'pg_restore takes the archive');
}
sound($other, 'docs_e_idx', 'after pg_restore');
same_rows($other, 'docs', 'after pg_restore');
cmp_ok(overlap($before, answers($other, 'docs')), '>=', 0.99, 'the answers are those of the other server');

# A restored server is another: its prune leaves what is not its own.
my $count = scalar stored_files();
($ret, $out, $err) = $other->psql($db, "SELECT count(*) FILTER (WHERE removed) FROM hybrid_archive_prune('attic', '0', 0)");
is("$ret|$out", '0|0', 'the other server removes nothing');
like($err, qr/has archives of other systems/, 'and says why');
is(scalar(stored_files()), $count, 'all files are there');

# Backup, and restore on the other server.
my ($backup, $backed_up) = split /\|/, one($node, "SELECT manifest, rows FROM hybrid_backup('docs', 'attic')");
is($backed_up, one($node, 'SELECT count(*) FROM docs'), 'every row is backed up');
my $second = one($node, "SELECT manifest, objects - reused FROM hybrid_backup('docs', 'attic')");
is((split /\|/, $second)[1], 1, 'a second backup sends the manifest only');
is(one($other, "SELECT table_name, rows, indexes, inserted FROM hybrid_restore('attic', '$backup', target_name => 'copy')"),
	"public.copy|$backed_up|1|0", 'restored, and its index linked');
sound($other, 'copy_e_at_idx', 'after restore');
same_rows($other, 'copy', 'after restore');
is(one($other, 'SELECT count(*) FROM (TABLE docs EXCEPT ALL TABLE copy) x'), 0, 'no row is missing');
is(one($other, 'SELECT count(*) FROM (TABLE copy EXCEPT ALL TABLE docs) x'), 0, 'no row is more');
isnt($other->psql($db, "SELECT * FROM hybrid_restore('attic', '$backup', target_name => 'copy')"), 0, 'not over a table that exists');
isnt($other->psql($db, "SELECT * FROM hybrid_restore('attic', '$later')"), 0, 'an export is no backup');

# Rights.
one($node, "CREATE ROLE stranger LOGIN; CREATE ROLE reader LOGIN; GRANT SELECT ON docs TO reader");
for my $case (
	[ 'reader', "hybrid_export('docs_e_idx', 'attic')", qr/permission denied for foreign server attic/ ],
	[ 'reader', "hybrid_archive_list('attic')", qr/permission denied for foreign server attic/ ],
	[ 'stranger', "hybrid_backup('docs', 'attic')", qr/permission denied/ ])
{
	my ($role, $call, $expected) = @$case;
	($ret, $out, $err) = $node->psql($db, "SET ROLE $role; SELECT * FROM $call");
	like($err, $expected, "$call by $role");
}
one($node, 'GRANT USAGE ON FOREIGN SERVER attic TO reader, stranger');
for my $case (
	[ 'stranger', "hybrid_export('docs_e_idx', 'attic')", qr/permission denied for the table of index/ ],
	[ 'reader', "hybrid_import('docs_e_idx', 'attic', '$later')", qr/must be owner of index/ ],
	[ 'reader', "hybrid_archive_prune('attic', '0')", qr/must be owner of foreign server attic/ ])
{
	my ($role, $call, $expected) = @$case;
	($ret, $out, $err) = $node->psql($db, "SET ROLE $role; SELECT * FROM $call");
	like($err, $expected, "$call by $role");
}
is($node->psql($db, "SET ROLE reader; SELECT * FROM hybrid_export('docs_e_idx', 'attic')"), 0, 'SELECT and USAGE are enough to export');

# Nothing is sent where nothing can be recorded.
my $files = scalar stored_files();
for my $call ("hybrid_export('docs_e_idx', 'attic')", "hybrid_backup('docs', 'attic')", "hybrid_import('docs_e_idx', 'attic', '$later')")
{
	($ret, $out, $err) = $node->psql($db, "BEGIN READ ONLY; SELECT * FROM $call");
	like($err, qr/cannot execute hybrid_\w+\(\) in a read-only transaction/, "$call in a read-only transaction");
}
is(scalar(stored_files()), $files, 'nothing was sent');

# Damage of every object, one by one: refused with a message that names it, and nothing changed.
my $generation = one($node, "SELECT pg_relation_filenode('docs_e_idx')");
my @needed = split /\n/, one($node, "SELECT object FROM hybrid_archive_verify('attic', '$later') WHERE object !~ '^tombstones'");
cmp_ok(scalar @needed, '>=', 3, 'graphs, lists and centroids');
for my $name (@needed)
{
	my ($path) = grep { m{/\Q$name\E$} } stored_files();
	my $sound = slurp_file($path);
	for my $how (qw(flip cut gone))
	{
		my $bytes = $sound;
		substr($bytes, length($bytes) / 2, 1) ^= "\x10" if $how eq 'flip';
		substr($bytes, -7) = '' if $how eq 'cut';
		unlink $path;
		if ($how ne 'gone') { open my $file, '>', $path or die; binmode $file; print $file $bytes; close $file }
		# What the cache has would hide it.
		system('rm', '-rf', $node->data_dir . '/pg_hybrid/cache');
		($ret, $out, $err) = $node->psql($db, "SELECT * FROM hybrid_import('docs_e_idx', 'attic', '$later')");
		isnt($ret, 0, "$name, $how: refused");
		like($err, qr/\Q$name\E/, 'by name');
	}
	unlink $path;
	open my $file, '>', $path or die; binmode $file; print $file $sound; close $file;
}
is(one($node, "SELECT pg_relation_filenode('docs_e_idx')"), $generation, 'the index is what it was');
system('rm', '-rf', $node->data_dir . '/pg_hybrid/cache');
# CREATE INDEX builds without what is damaged.
my ($graph) = grep { m{/graph-} } stored_files();
my $kept = slurp_file($graph);
truncate $graph, 100;
($ret, $out, $err) = $node->psql($db, "CREATE INDEX second ON docs USING hybrid (e, at) WITH (recent_threshold = '30 days', source = 'attic $later')");
is($ret, 0, 'CREATE INDEX never fails for an archive');
like($err, qr/WARNING:  index "second" is not made of an archive on server "attic"/, 'but warns') if grep { $graph =~ /\Q$_\E/ } @needed;
sound($node, 'second', 'built without an archive');
one($node, 'DROP INDEX second');
{ open my $file, '>', $graph or die; binmode $file; print $file $kept; close $file }

# Another definition.
one($node, 'CREATE INDEX cosine ON docs USING hybrid (e vector_cosine_ops, at)');
($ret, $out, $err) = $node->psql($db, "SELECT * FROM hybrid_import('cosine', 'attic', '$later')");
like($err, qr/archive does not fit index "cosine": the archive is of metric L2/, 'another metric is refused');
one($node, 'DROP INDEX cosine');

# kill -9 at any time: nothing half done is seen, and the next run does it.
for my $round (1 .. $KILLS)
{
	one($node, "UPDATE docs SET tenant = tenant + 1 WHERE id % 7 = $round % 7");
	my $work = $round % 2 ? "hybrid_export('docs_e_idx', 'attic')" : "hybrid_import('docs_e_idx', 'attic', '$later')";
	my $pid = fork();
	if ($pid == 0)
	{
		open STDOUT, '>', '/dev/null';
		open STDERR, '>', '/dev/null';
		exec 'psql', '-X', '-d', $node->connstr($db), '-c', "SELECT * FROM $work";
	}
	usleep(20_000 + 37_000 * $round);
	kill_server($node);
	waitpid $pid, 0;
	$node->start;
	sound($node, 'docs_e_idx', "kill $round during $work");
	same_rows($node, 'docs', "kill $round");
}
my $final = one($node, "SELECT manifest FROM hybrid_export('docs_e_idx', 'attic')");
is(one($node, "SELECT count(*) FROM hybrid_archive_verify('attic', '$final') WHERE NOT ok"), 0, 'an export after the kills is sound');
is(scalar(grep { -f } glob "$attic/incoming/*"), 0, 'nothing is left of broken uploads');

# A session that is terminated between fetching an archive and building the index ends as any other.
# It is found at the lock of the table, which somebody keeps.
sub background
{
	my (@commands) = @_;
	my $pid = fork();
	return $pid if $pid;
	open STDOUT, '>', '/dev/null';
	open STDERR, '>', '/dev/null';
	exec 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db), map { ('-c', $_) } @commands;
}
my $holder = background('BEGIN', 'LOCK TABLE docs IN SHARE UPDATE EXCLUSIVE MODE', 'SELECT pg_sleep(600)');
my $of_table = "pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.relation = 'docs'::regclass";
$node->poll_query_until($db, "SELECT count(*) = 1 FROM $of_table AND l.granted AND l.mode = 'ShareUpdateExclusiveLock'") or die 'no lock';
my @importers = map { background("SELECT * FROM hybrid_import('docs_e_idx', 'attic', '$final')") } 1 .. 3;
my $waits = "FROM $of_table AND NOT l.granted AND a.query ~ 'hybrid_import'";
$node->poll_query_until($db, "SELECT count(*) = 3 $waits") or die 'they do not wait';
my $log_before = -s $node->logfile;
one($node, "SELECT pg_terminate_backend((SELECT min(l.pid) $waits), 180000)");
one($node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ 'pg_sleep.600' AND pid <> pg_backend_pid()");
waitpid $holder, 0;
my @ends = map { waitpid $_, 0; $? >> 8 } @importers;
my $last_words = slurp_file($node->logfile, $log_before);
like($last_words, qr/terminating connection due to administrator command/, 'terminated while it waits to build');
unlike($last_words, qr/temporary file \d+ is not owned/, 'its temporary file is closed once');
# The others have no lock on the index while they wait for one another.
is(scalar(grep { $_ == 0 } @ends), 2, 'imports of one index wait for each other');
unlike($last_words, qr/deadlock/, 'and not in a circle');

# What is fetched counts against temp_file_limit.
($ret, $out, $err) = $node->psql($db, "SET maintenance_work_mem = '1GB'; SET temp_file_limit = '64kB'; SELECT * FROM hybrid_import('docs_e_idx', 'attic', '$final')");
like($err, qr/temporary file size exceeds temp_file_limit/, 'an archive is no way around temp_file_limit');

# Prune: the last of each kind stays, with all that it names.
one($node, "SELECT * FROM hybrid_archive_prune('attic', '0', 1)");
is(one($node, "SELECT kind, count(*) FROM hybrid_archive_list('attic') GROUP BY 1 ORDER BY 1"), "backup|1\nexport|1", 'the last ones stay');
is(one($node, "SELECT count(*) FROM hybrid_archive_list('attic') l, hybrid_archive_verify('attic', l.manifest) v WHERE NOT v.ok"), 0, 'with all their objects');
is(one($node, "SELECT count(*) FROM hybrid_archives WHERE server = 'attic'"), 2, 'and their records');
one($node, "SELECT * FROM hybrid_archive_prune('attic', '0', 0)");
is(join(' ', stored_files()), '', 'nothing is left when nothing is to be kept');

crash_free($other, 'other server');
done_testing();
