# Pages of dropped segments are used again: an index whose rows come and go does not grow for ever. Not while somebody may
# still read them.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use HybridVec;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('reuse', conf => "hybrid.compaction_workers = 0\nmax_wal_size = 1GB\n");
my %indexes = (g => "recent_threshold = 'infinity'", l => 'recent_rows = 0');
for my $t (sort keys %indexes)
{
	$node->safe_psql('postgres', <<"SQL");
CREATE TABLE $t (id bigserial PRIMARY KEY, e vector(16));
CREATE INDEX ${t}_e_idx ON $t USING hybrid (e) WITH (pending_rows = 300, segment_rows = 1000, $indexes{$t});
SQL
	my $round = sub {
		$node->safe_psql('postgres', "INSERT INTO $t (e) SELECT vec(n) FROM generate_series($_[0], $_[0] + 2999) n");
		$node->safe_psql('postgres', "SELECT count(*) FROM hybrid_compact('${t}_e_idx')");
		$node->safe_psql('postgres', "DELETE FROM $t WHERE id <= (SELECT max(id) FROM $t) - 3000");
		$node->safe_psql('postgres', "VACUUM $t");
		return $node->safe_psql('postgres', "SELECT pg_relation_size('${t}_e_idx') / 8192");
	};
	my @sizes = map { $round->(3000 * $_) } 1 .. 16;
	diag("$t: pages after each round: @sizes");
	my ($early) = sort { $b <=> $a } @sizes[ 0 .. 7 ];
	my ($late) = sort { $b <=> $a } @sizes[ 8 .. 15 ];
	cmp_ok($late, '<=', 1.15 * $early, "$t: the index does not grow any more");
	sound($node, "${t}_e_idx", 'after 16 rounds');
	same_rows($node, $t, 'after 16 rounds');
	# Without a worker VACUUM may have dropped a segment at its end.
	$node->safe_psql('postgres', "SELECT count(*) FROM hybrid_compact('${t}_e_idx')");
	for (1, 2)
	{
		$node->safe_psql('postgres', 'SELECT txid_current()');
		$node->safe_psql('postgres', "VACUUM $t");
	}
	is(leaked_pages($node, "${t}_e_idx"), 0, "$t: no page is lost");

	# A cursor keeps the pages that it may read, and gets all its rows.
	my ($in, $out, $err) = ("BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off;
SELECT count(*) FROM $t; DECLARE c CURSOR FOR SELECT id FROM $t ORDER BY e <-> (SELECT NULL::vector); FETCH 1 FROM c; \\echo opened\n", '', '');
	my $session = IPC::Run::start([ 'psql', '-XAtq', $node->connstr('postgres') ], \$in, '>', \$out, '2>', \$err);
	$session->pump until $out =~ /opened/;
	my ($rows) = $out =~ /^(\d+)/;
	$round->(100000 + 3000 * $_) for 1 .. 3;
	$in = "\\echo rows\nFETCH ALL FROM c;\n\\q\n";
	$session->finish;
	is($err, '', "$t: a cursor over compaction fails in nothing");
	my %seen = map { $_ => 1 } $out =~ /^(\d+)$/mg;
	my ($after) = $out =~ /rows\n(.*)/s;
	is(scalar(() = $after =~ /^\d+$/mg), $rows - 1, "$t: it gets all its rows");
}
$node->stop;
crash_free($node, 'reuse');
done_testing();
