# Pages damaged on disk: search, insert, vacuum and checks say XX002 or XX001 with the index's name and a hint, or, where
# the damage is in what only a checksum covers (codes, distances), go on. They never crash, hang or eat memory.
#
# FUZZ: rounds of random damage (default 15). SEED: repeats a run.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use HybridVec;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $rounds = $ENV{FUZZ} || 15;
my $seed = $ENV{SEED} || int(rand(2**31));
srand($seed);
diag("seed $seed, $rounds rounds");

my $node = new_node('damage', initdb => ['--wal-segsize=1'], conf => "min_wal_size = 4MB\nmax_wal_size = 8MB\nrestart_after_crash = on\nstatement_timeout = '20s'\n");
# t: segments, duplicates with overflow chunks. w: elements of one page with code tails.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE t (id serial, e vector(16));
INSERT INTO t (e) SELECT vec(n) FROM generate_series(1, 2300) n;
INSERT INTO t (e) SELECT vec(n % 3) FROM generate_series(1, 200) n;
CREATE INDEX t_e_idx ON t USING hybrid (e) WITH (segment_rows = 1000, m = 4);
CREATE TABLE w (id serial, e vector(9000));
INSERT INTO w (e) SELECT vec(n, 9000) FROM generate_series(1, 60) n;
CREATE INDEX w_e_idx ON w USING hybrid (e vector_cosine_ops);
SQL
# The statements that are tried after each damage; inserts and vacuums are undone by putting the file back.
my %QUERY = (t => 'vec(77)', w => 'vec(7, 9000)');
my %OPERATOR = (t => '<->', w => '<=>');

sub statements
{
	my ($t) = @_;
	my $by_index = 'SET enable_seqscan = off; SET enable_sort = off;';
	return (
		search => "$by_index SET hybrid.ef_search = 15; SELECT count(*) FROM (SELECT id FROM $t ORDER BY e $OPERATOR{$t} $QUERY{$t} LIMIT 10) s",
		exhaust => "$by_index SELECT count(*) FROM (SELECT id FROM $t ORDER BY e $OPERATOR{$t} $QUERY{$t} OFFSET 0) s",
		null => "$by_index SELECT count(*) FROM (SELECT id FROM $t ORDER BY e $OPERATOR{$t} (SELECT NULL::vector) OFFSET 0) s",
		check => "SELECT count(*) FROM hybrid_check('${t}_e_idx', true)",
		stats => "SELECT * FROM hybrid_stats('${t}_e_idx')",
		segments => "SELECT * FROM hybrid_segments('${t}_e_idx')",
		plan => "$by_index EXPLAIN SELECT id FROM $t ORDER BY e $OPERATOR{$t} $QUERY{$t} LIMIT 10",
		insert => "INSERT INTO $t (e) SELECT e FROM $t WHERE id <= 5; INSERT INTO $t (e) SELECT e + e FROM $t WHERE id BETWEEN 6 AND 12",
		vacuum => "DELETE FROM $t WHERE id % 50 = 7; VACUUM (INDEX_CLEANUP on) $t");
}

my %file = map { $_ => $node->data_dir . '/' . $node->safe_psql('postgres', "CHECKPOINT; SELECT pg_relation_filepath('${_}_e_idx')") } qw(t w);
my %heap = map { $_ => $node->safe_psql('postgres', "SELECT pg_relation_filepath('$_')") } qw(t w);
my %blocks = map { $_ => (-s $file{$_}) / 8192 } qw(t w);
my %kinds;
for my $t (qw(t w))
{
	for my $line (split /\n/, $node->safe_psql('postgres', "SELECT b, kind FROM generate_series(0, $blocks{$t} - 1) b, hybrid_page('${t}_e_idx', b)"))
	{
		my ($block, $kind) = split /\|/, $line;
		push @{ $kinds{$t}{$kind} }, $block;
	}
	diag("$t: " . join ', ', map { "$_ " . @{ $kinds{$t}{$_} } } sort keys %{ $kinds{$t} });
}
$node->stop;
my $sound = PostgreSQL::Test::Utils::tempdir;
system('cp', '-a', $node->data_dir, "$sound/data") == 0 or die;

sub put_back
{
	system('rm', '-rf', $node->data_dir) == 0 && system('cp', '-a', "$sound/data", $node->data_dir) == 0 or die;
}

sub overwrite
{
	my ($file, $offset, $bytes) = @_;
	open my $f, '+<', $file or die "$file: $!";
	binmode $f;
	seek $f, $offset, 0;
	print $f $bytes;
	close $f;
}

my %said;

# Runs all statements; returns what was bad about their answers, and how many raised an error.
sub try_all
{
	my ($t) = @_;
	my %statements = statements($t);
	my ($bad, $errors, $detected) = ('', 0, 0);
	for my $name (qw(search exhaust null check stats segments plan insert vacuum))
	{
		my ($code, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSET statement_timeout = '20s'; $statements{$name}");
		$detected = 1 if $name eq 'check' && ($err || ($out // '') ne '0');
		next if $code == 0;
		$errors++;
		my ($state, $message) = ($err // '') =~ /ERROR:  (\w{5}): (.*)/;
		$state //= '?';
		$said{"$state: " . (($message // $err) =~ s/\d+/N/gr =~ s/"._e_idx"/"..."/r)}++;
		# Plausible numbers in wrong places: the executor notices distances, the type dimensions.
		next if $state eq 'XX000' && $message =~ /index returned tuples in wrong order/;
		# A damaged heap TID leads beyond the end of the table, as it would from any index.
		next if $message =~ m!could not (open file|read block \d+ in file) "\Q$heap{$t}\E!;
		next if $state eq '22000' && $message =~ /different vector dimensions|expected \d+ dimensions/;
		if ($state eq 'XX002' && $err !~ /HINT:  REINDEX/) { $bad .= "$name: no hint: $err\n" }
		if ($state !~ /^XX00[12]$/) { $bad .= "$name: $err\n" }
	}
	return ($bad, $errors, $detected);
}

sub damaged
{
	my ($label, $t, $must, @patches) = @_;
	put_back();
	overwrite($file{$t}, @$_) for @patches;
	my $from = -s $node->logfile;
	$node->start;
	my ($bad, $errors, $detected) = try_all($t);
	$node->stop('fast');
	my $log = substr slurp_file($node->logfile), $from;
	$bad .= $_ for grep { /terminated by signal|PANIC|panicked|[Oo]ut of memory/ } split /^/, $log;
	is($bad, '', "$label: $errors statements raise an error, all of them a good one");
	ok($detected, "$label: hybrid_check notices") if $must;
	return $bad eq '';
}

sub at { my ($block, $offset) = @_; return $block * 8192 + $offset }
my $meta = 24;
my $trailer = 8192 - 16;
my $any = sub { my ($t, $kind) = @_; my @b = @{ $kinds{$t}{$kind} }; return $b[ int rand @b ] };
my $NONE = pack 'V', 0xFFFFFFFF;
my $FAR = pack 'V', 0xFFFFFFF0;

# Whole pages
for my $t (qw(t w))
{
	for my $kind (sort keys %{ $kinds{$t} })
	{
		my $block = $kinds{$t}{$kind}[0];
		damaged("$t: zero page, $kind", $t, $kind ne 'overflow TIDs' && $kind ne 'upper neighbors' && $kind ne 'code tail',
			[ at($block, 0), "\0" x 8192 ]);
	}
}
my $element = $any->('t', 'element');
damaged('noise in a page header', 't', 1, [ at($element, 0), "\xA5" x 24 ]);
damaged('page of another kind', 't', 1, [ at($element, $trailer + 4), chr 6 ]);
damaged('page of another segment', 't', 1, [ at($element, $trailer), pack 'V', 77 ]);
put_back();
truncate $file{t}, 8192 * int($blocks{t} / 2);
$node->start;
my ($bad, $errors, $detected) = try_all('t');
$node->stop;
is($bad, '', 'file cut in half: good errors');
cmp_ok($errors, '>', 2, "file cut in half: $errors errors");
ok($detected, 'file cut in half: hybrid_check notices');

# Single fields
damaged('metapage: no mark', 't', 1, [ at(0, $meta), 'oops' ]);
damaged('metapage: root beyond the end', 't', 1, [ at(0, $meta + 24), pack 'V', 99999 ]);
damaged('metapage: root far beyond the end', 't', 1, [ at(0, $meta + 24), $FAR ]);
damaged('metapage: root is no block', 't', 1, [ at(0, $meta + 24), $NONE ]);
damaged('metapage: other dimensions', 't', 1, [ at(0, $meta + 8), pack 'v', 15 ]);
damaged('metapage: other m', 't', 0, [ at(0, $meta + 10), pack 'v', 16 ]);
damaged('metapage: no segment_rows', 't', 0, [ at(0, $meta + 32), "\0" x 8 ]);
damaged('metapage: no ef_construction', 't', 0, [ at(0, $meta + 12), "\0" x 2 ]);
damaged('metapage: generation', 't', 1, [ at(0, $meta + 16), pack 'V', 500 ]);
damaged('directory: head is no block', 't', 1, [ at(1, $meta + 16 + 8), $NONE ]);
damaged('directory: two entries alike', 't', 1, [ at(1, $meta + 16), pack 'V', 2 ]);
damaged('directory: none active', 't', 1, map { [ at(1, $meta + 16 + 32 * $_ + 5), "\0" ] } 0 .. 5);
damaged('directory: no segments', 't', 1, [ at(1, $meta + 8), "\0\0" ]);
my $head = $kinds{t}{'segment head'}[0];
my $last = $kinds{t}{'segment head'}[-1];
damaged('head: entry point beyond the end', 't', 1, [ at($head, $meta), $FAR ]);
damaged('head: entry point unset', 't', 0, [ at($head, $meta), $NONE ]);
damaged('head: entry level', 't', 1, [ at($head, $meta + 4), chr 200 ]);
damaged('head: first page is none', 't', 1, [ at($head, $meta + 32), $NONE ]);
damaged('head: last page of elements is another page', 't', 0, [ at($last, $meta + 56), pack 'V', 1 ]);
damaged('head: last page of elements is none', 't', 0, [ at($last, $meta + 56), $NONE ]);
damaged('head: last page far away', 't', 0, [ at($last, $meta + 56), $FAR ]);
damaged('head: page count', 't', 1, [ at($head, $meta + 8), pack 'V', 5 ]);
my $first = $kinds{t}{'element'}[0];
damaged('elements: a circle of pages', 't', 1, [ at($kinds{t}{'element'}[3], $trailer + 8), pack 'V', $first ]);
damaged('elements: a page next to itself', 't', 1, [ at($kinds{t}{'element'}[3], $trailer + 8), pack 'V', $kinds{t}{'element'}[3] ]);
damaged('elements: next page beyond the end', 't', 1, [ at($kinds{t}{'element'}[3], $trailer + 8), $FAR ]);
damaged('elements: more slots than fit', 't', 0, [ at($kinds{t}{'element'}[3], $trailer + 6), "\xFF\xFF" ]);
damaged('elements: fewer slots', 't', 1, [ at($kinds{t}{'element'}[3], $trailer + 6), "\x01\x00" ]);
my @overflow = @{ $kinds{t}{'overflow TIDs'} };
damaged('overflow: a circle', 't', 1, map { my $b = $_; map { [ at($b, 24 + 128 * $_), pack 'V', $b * 63 + $_ ] } 0 .. 62 } @overflow);
damaged('overflow: far away', 't', 1, map { my $b = $_; map { [ at($b, 24 + 128 * $_), $FAR ] } 0 .. 62 } @overflow);
for my $t (qw(t w))
{
	my $whole = $any->($t, 'element');
	damaged("$t: body of an element page all ones", $t, 1, [ at($whole, 24), "\xFF" x (8192 - 40) ]);
	damaged("$t: body of an element page all zero", $t, $t eq 't', [ at($whole, 24), "\0" x (8192 - 40) ]);
	for my $kind ('upper neighbors', 'overflow TIDs', 'code tail')
	{
		my $block = ($kinds{$t}{$kind} // next)->[0];
		damaged("$t: body of a page of $kind all ones", $t, 0, [ at($block, 24), "\xFF" x (8192 - 40) ]);
	}
}

# Random bytes anywhere
for my $round (1 .. $rounds)
{
	my $t = $round % 3 ? 't' : 'w';
	my @kinds = sort keys %{ $kinds{$t} };
	my @patches = map {
		my $kind = $kinds[ int rand @kinds ];
		my $length = 1 + int rand(rand() < 0.5 ? 4 : 200);
		my $offset = rand() < 0.2 ? $trailer - 4 + int rand 12 : int rand 8192;
		$length = 8192 - $offset if $offset + $length > 8192;
		[ at($any->($t, $kind), $offset), join '', map { chr int rand 256 } 1 .. $length ]
	} 1 .. 1 + int rand 6;
	damaged("random $round", $t, 0, @patches)
	  or diag('patches: ' . join ', ', map { sprintf '%d+%d: %s', int $_->[0] / 8192, $_->[0] % 8192, unpack 'H*', $_->[1] } @patches);
}
diag("$said{$_} x $_") for sort { $said{$b} <=> $said{$a} } keys %said;
done_testing();
