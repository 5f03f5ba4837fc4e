# Archives and other sessions: rollbacks and cancels leave nothing behind, exports of one index at the same time agree, a prune
# waits for exports and they for it, compaction goes on meanwhile, of two restores of one table one is refused.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use HybridVec;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

my $ROWS = 4000;
my $db = 'postgres';
my $node = new_node('sessions', conf => "max_wal_size = 2GB\nhybrid.compaction_workers = 0\nclient_min_messages = error\n");
my $attic = $node->basedir . '/attic';
mkdir $attic, 0700 or die "$attic: $!";

sub one { my ($sql) = @_; return $node->safe_psql($db, $sql) }

# A session that takes statements one after the other.
sub session
{
	my ($in, $out, $err) = ('', '', '');
	my $run = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', $node->connstr($db) ], \$in, '>', \$out, '2>', \$err);
	my $session = { run => $run, in => \$in, out => \$out, err => \$err };
	$session->{pid} = said($session, 'SELECT pg_backend_pid()');
	return $session;
}

# Begins a statement.
sub ask { my ($session, $sql) = @_; ${ $session->{in} } .= "$sql;\n\\echo done\n"; $session->{run}->pump_nb }

# What came of what was begun: rows and errors.
sub heard
{
	my ($session) = @_;
	my $end = time() + 60;
	until (${ $session->{out} } =~ /^done\n/m)
	{
		die "no answer: ${ $session->{err} }" if time() > $end || !$session->{run}->pumpable;
		$session->{run}->pump_nb;
		usleep(2000);
	}
	my $said = ${ $session->{out} } =~ s/^done\n//mr;
	${ $session->{out} } = '';
	# Errors come by another pipe, a moment later maybe.
	$session->{run}->pump_nb for 1 .. 3;
	$said .= ${ $session->{err} };
	${ $session->{err} } = '';
	return $said =~ s/\n$//r;
}

sub said { my ($session, $sql) = @_; ask($session, $sql); return heard($session) }

# Waits until a session waits for a lock.
sub blocked
{
	my ($session, $label) = @_;
	ok(wait_until(sub { one("SELECT wait_event_type FROM pg_stat_activity WHERE pid = $session->{pid}") eq 'Lock' }, 20), $label);
}

# Files of relations in the database's directory of which no relation knows.
sub strays
{
	my %known = map { $_ => 1 } split /\n/, one('CHECKPOINT; SELECT pg_relation_filenode(oid) FROM pg_class WHERE pg_relation_filenode(oid) IS NOT NULL');
	my $directory = $node->data_dir . '/base/' . one("SELECT oid FROM pg_database WHERE datname = '$db'");
	opendir my $files, $directory or die "$directory: $!";
	return join ' ', sort grep { /^(\d+)(?:_\w+)?(?:\.\d+)?$/ && !$known{$1} } readdir $files;
}

# The domain lets a session stop at a row: it waits where somebody holds the lock of that number.
one(<<"SQL");
CREATE FUNCTION gate(n int) RETURNS bool LANGUAGE plpgsql AS \$\$ BEGIN
    IF n IN (1, $ROWS / 2) THEN PERFORM pg_advisory_xact_lock_shared(n); END IF; RETURN true; END \$\$;
CREATE FUNCTION gate_of_statements() RETURNS event_trigger LANGUAGE plpgsql AS \$\$ BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext(tg_event || ' ' || tg_tag)); END \$\$;
CREATE DOMAIN gated AS int CHECK (gate(VALUE));
CREATE TABLE docs (id gated PRIMARY KEY, e vector(16) NOT NULL, at timestamptz, body text);
INSERT INTO docs SELECT n, vec(n), now() - (1 + n % 100) * interval '1 day', repeat(md5(n::text), 30) FROM generate_series(1, $ROWS) n;
CREATE INDEX docs_e_idx ON docs USING hybrid (e, at) WITH (recent_threshold = '30 days', pending_rows = 200);
VACUUM FULL ANALYZE docs;
CREATE SERVER attic FOREIGN DATA WRAPPER hybrid_store OPTIONS (type 'directory', path '$attic');
SQL

# ROLLBACK after an export, then VACUUM: nothing is recorded, the index is sound, the next export sends its manifest only.
my ($ret, $out) = $node->psql($db, "BEGIN; SELECT objects FROM hybrid_export('docs_e_idx', 'attic'); DELETE FROM docs WHERE id % 100 = 7; ROLLBACK; VACUUM docs");
is($ret, 0, 'ROLLBACK after an export, and VACUUM');
my $objects = $out;
is(one("SELECT count(*) FROM hybrid_archives"), 0, 'nothing is recorded');
sound($node, 'docs_e_idx', 'after the rollback');
same_rows($node, 'docs', 'after the rollback');
is(one("SELECT objects, reused FROM hybrid_export('docs_e_idx', 'attic')"), "$objects|" . ($objects - 1), 'the next export finds what was sent');
is(one("SELECT count(*), bool_and(ours), count(*) FILTER (WHERE recorded) FROM hybrid_archive_list('attic')"), '2|t|1', 'both are ours, so that a prune can remove them');
my $backup = one("BEGIN; SELECT manifest FROM hybrid_backup('docs', 'attic'); ROLLBACK; VACUUM docs");
is(one("SELECT rows FROM hybrid_restore('attic', '$backup', target_name => 'copy')"), $ROWS, 'a backup that was rolled back can be restored');
sound($node, 'copy_e_at_idx', 'restored');
one('DROP TABLE copy');

# pg_cancel_backend during a restore: at statements, at the first row, in the middle of the rows.
my $holder = session();
is(strays(), '', 'no file that nobody knows');
one('CREATE EVENT TRIGGER gate_start ON ddl_command_start EXECUTE FUNCTION gate_of_statements();
	CREATE EVENT TRIGGER gate_end ON ddl_command_end EXECUTE FUNCTION gate_of_statements()');
my $restore = "SELECT rows FROM hybrid_restore('attic', '$backup', target_name => 'copy')";
for my $gate (1, $ROWS / 2, map { "hashtext('$_')" } 'ddl_command_end CREATE TABLE', 'ddl_command_start ALTER TABLE', 'ddl_command_end ALTER TABLE',
	'ddl_command_start CREATE INDEX', 'ddl_command_end CREATE INDEX')
{
	said($holder, "SELECT pg_advisory_lock($gate)");
	my $session = session();
	for my $how ('pg_cancel_backend', 'a savepoint')
	{
		ask($session, $how eq 'a savepoint' ? "BEGIN; SAVEPOINT s; $restore" : $restore);
		blocked($session, "$gate: the restore waits");
		is(one("SELECT count(*) FROM pg_class WHERE relname ~ '^copy'"), 0, 'others do not see it');
		one("SELECT pg_cancel_backend($session->{pid})");
		like(heard($session), qr/57014: canceling statement due to user request/, "$gate: canceled");
		is(said($session, "ROLLBACK TO s; SELECT to_regclass('copy') IS NULL; COMMIT"), 't', "$gate: $how: nothing is left") if $how eq 'a savepoint';
		is(one("SELECT count(*) FROM pg_class WHERE relname ~ '^copy'"), 0, "$gate: $how: nothing of it is visible");
		is(strays() . join(' ', temp_files($node)), '', "$gate: $how: no file is left");
	}
	said($holder, "SELECT pg_advisory_unlock($gate)");
	is(said($session, $restore), $ROWS, "$gate: the same session restores it then");
	sound($node, 'copy_e_at_idx', $gate);
	is(one('SELECT count(*) FROM ((TABLE docs EXCEPT ALL TABLE copy) UNION ALL (TABLE copy EXCEPT ALL TABLE docs)) x'), 0, 'the same rows');
	one('DROP TABLE copy');
	$session->{run}->finish if ${ $session->{in} } .= "\\q\n";
}
one('DROP EVENT TRIGGER gate_start; DROP EVENT TRIGGER gate_end');

# Two restores of one table: the second waits for the first, and is refused or takes its place.
my ($first, $second) = (session(), session());
for my $end (qw(COMMIT ROLLBACK))
{
	is(said($first, "BEGIN; $restore"), $ROWS, 'a restore that is not committed');
	ask($second, $restore);
	blocked($second, 'a second one waits');
	said($first, $end);
	$end eq 'COMMIT'
	  ? like(heard($second), qr/ERROR:  42P07: relation "public.copy" already exists/, 'after COMMIT it is refused')
	  : is(heard($second), $ROWS, 'after ROLLBACK it is done');
	sound($node, 'copy_e_at_idx', "after $end");
	same_rows($node, 'copy', "after $end");
	is(one("SELECT count(*) FROM pg_class WHERE relname ~ '^copy' AND relkind = 'i'"), 2, 'one set of indexes');
	one('DROP TABLE copy');
}
is(strays(), '', 'no file that nobody knows');

# Two exports of one index at the same time, the first ones of a database: the sets of both are ours, each object is there once.
one('DELETE FROM hybrid_archives; DELETE FROM hybrid_archive_sets');
system('rm', '-rf', glob("$attic/*"), $node->data_dir . '/pg_hybrid/receipts');
one('UPDATE docs SET body = body WHERE id <= 1500');
my $export = "SELECT manifest FROM hybrid_export('docs_e_idx', 'attic')";
for my $round (1 .. 4)
{
	ask($_, $export) for $first, $second;
	my @manifests = map { heard($_) } $first, $second;
	like($_, qr/manifest-[0-9a-f]{32}\.cbor$/, "exported at the same time, $round") for @manifests;
	is(one("SELECT bool_and(ok) FROM hybrid_archive_verify('attic', '$_')"), 't', 'all of it is sound') for @manifests;
	one("UPDATE docs SET body = body WHERE id % 4 = $round % 4");
}
is(one("SELECT count(*) FILTER (WHERE NOT ours) FROM hybrid_archive_list('attic')"), 0, 'all of them are ours');

# Exports while rows come and compaction runs.
my $writer = session();
for my $round (1 .. 6)
{
	ask($first, "INSERT INTO docs SELECT n, vec(n), now() - n % 60 * interval '1 day', '' FROM generate_series($ROWS + $round * 1000, $ROWS + $round * 1000 + 699) n;
		SELECT count(*) FROM hybrid_compact('docs_e_idx')");
	ask($second, $export);
	ask($writer, "DELETE FROM docs WHERE id % 50 = $round");
	my ($compacted, $manifest) = map { heard($_) } $first, $second, $writer;
	like($compacted, qr/^\d+$/, "compacted, $round");
	is(one("SELECT bool_and(ok) FROM hybrid_archive_verify('attic', '$manifest')"), 't', 'what was exported meanwhile is sound') or diag $manifest;
	is(one("SELECT linked + inserted - (SELECT count(*) FROM docs) FROM hybrid_import('docs_e_idx', 'attic', '$manifest')"), 0, 'and comes back');
	sound($node, 'docs_e_idx', "round $round");
	same_rows($node, 'docs', "round $round");
}

# A prune waits for an export, and an export for a prune. Neither takes from the other.
my $prune = "SELECT count(*) FILTER (WHERE removed) FROM hybrid_archive_prune('attic', '0', 1)";
my $manifest = said($first, "BEGIN; $export");
ask($second, $prune);
blocked($second, 'a prune waits for an export');
ask($writer, $export);
blocked($writer, 'who comes later waits, too');
said($first, 'COMMIT');
cmp_ok(heard($second), '>', 0, 'then it prunes');
my $last = heard($writer);
is(one("SELECT bool_and(ok) FROM hybrid_archive_verify('attic', '$_')"), 't', 'the export is whole') for $manifest, $last;
cmp_ok(said($first, "BEGIN; $prune"), '>', 0, 'a prune');
ask($second, $export);
blocked($second, 'an export waits for it');
said($first, 'COMMIT');
$manifest = heard($second);
is(one("SELECT bool_and(ok) FROM hybrid_archive_verify('attic', '$manifest')"), 't', 'and is whole');
# A prune that is rolled back has removed what it removed; what is recorded of it goes with the next.
said($first, "BEGIN; $prune; ROLLBACK");
cmp_ok(one("SELECT count(*) FROM hybrid_archives"), '>', one("SELECT count(*) FROM hybrid_archive_list('attic') WHERE problem IS NULL"), 'records of what is gone');
one($prune);
is(one("SELECT count(*) FROM hybrid_archives a WHERE NOT EXISTS (SELECT FROM hybrid_archive_list('attic') l WHERE l.manifest = a.manifest)"), 0, 'go with the next prune');
is(one("SELECT count(*) FROM hybrid_archive_list('attic') l, hybrid_archive_verify('attic', l.manifest) v WHERE NOT v.ok"), 0, 'what stays is whole');

crash_free($node, 'sessions');
done_testing();
