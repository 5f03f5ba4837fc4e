# Archives of databases that are not UTF-8: names, defaults, comments and rows come back as they were, in a database of the same
# encoding and of another; what cannot be told or held is refused, with a hint. Nothing becomes other characters.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use HybridVec;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# This file is UTF-8, and so is what psql gets and gives.
$ENV{PGCLIENTENCODING} = 'UTF8';

my $node = new_node('encodings', conf => "hybrid.compaction_workers = 0\n");
my $attic = $node->basedir . '/attic';
mkdir $attic, 0700 or die "$attic: $!";

my %encodings = (latin => 'LATIN1', utf => 'UTF8', ascii => 'SQL_ASCII', japan => 'EUC_JP');
for my $name (sort keys %encodings)
{
	$node->safe_psql('postgres', "CREATE DATABASE $name ENCODING '$encodings{$name}' LOCALE 'C' TEMPLATE template0");
	$node->safe_psql($name, $HybridVec::FUNCTIONS);
	$node->safe_psql($name, "CREATE SERVER attic FOREIGN DATA WRAPPER hybrid_store OPTIONS (type 'directory', path '$attic')");
}

sub one { my ($name, $sql) = @_; return $node->safe_psql($name, $sql) }

# What a call that fails says, with its SQLSTATE.
sub refused
{
	my ($name, $sql) = @_;
	my ($ret, $out, $err) = $node->psql($name, "\\set VERBOSITY verbose\n$sql");
	isnt($ret, 0, "$name: refused") or diag $out;
	return $err;
}

# All of a table that people see: rows as UTF-8, columns, defaults, comments.
sub shown
{
	my ($name, $table) = @_;
	return one($name, <<"SQL");
SELECT md5(string_agg(convert_to(t::text, 'UTF8'), '|' ORDER BY id)) FROM $table t;
SELECT attname, atttypid::regtype, pg_get_expr(adbin, adrelid), col_description(attrelid, attnum)
FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attrelid = '$table'::regclass AND attnum > 0 AND attname <> 'id' ORDER BY attnum;
SELECT obj_description('$table'::regclass);
SELECT relname FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indrelid = '$table'::regclass ORDER BY 1
SQL
}

my $table = <<'SQL';
CREATE SCHEMA "schön";
CREATE TABLE "schön"."größe" (id serial, "straße" text DEFAULT 'müßig', "naïve" text[] DEFAULT '{é,"ñ\\o"}', e vector(16) NOT NULL);
INSERT INTO "schön"."größe" SELECT n, 'Zeile ' || n || ' äöüß ÿ', ARRAY['Ça', NULL, E'tab\tÉ'], vec(n) FROM generate_series(1, 500) n;
COMMENT ON TABLE "schön"."größe" IS 'Größen, £ und ½';
COMMENT ON COLUMN "schön"."größe"."straße" IS '''quoted'' ß';
CREATE INDEX "index_ä" ON "schön"."größe" USING hybrid (e);
CREATE INDEX "nach_straße" ON "schön"."größe" ("straße");
CREATE SERVER "böden" FOREIGN DATA WRAPPER hybrid_store OPTIONS (type 'directory', path 'PATH');
SQL
$table =~ s/PATH/$attic/;

# From Latin-1 to the same, and to others that have the characters.
one('latin', $table);
my $before = shown('latin', '"schön"."größe"');
like($before, qr/straße.*müßig.*'quoted' ß.*Größen, £ und ½.*index_ä.*nach_straße/s, 'the table is as written');
my ($manifest, $rows) = split /\|/, one('latin', q{SELECT manifest, rows FROM hybrid_backup('"schön"."größe"', 'böden')});
is($rows, 500, 'Latin-1: backed up');
is(one('latin', 'SELECT server, database, table_schema, table_name FROM hybrid_archives'), 'böden|latin|schön|größe', 'it is recorded by its names');
is(one('latin', 'SELECT source, problem FROM hybrid_archive_list($$böden$$)'), 'latin.schön.größe|', 'and listed');
like(refused('latin', "SELECT * FROM hybrid_restore('böden', '$manifest')"),
	qr/42P07: relation "sch\\u00f6n.gr\\u00f6\\u00dfe" already exists/, 'a message shows other characters by their numbers');
one('latin', 'ALTER TABLE "schön"."größe" RENAME TO alt; ALTER INDEX "schön"."index_ä" RENAME TO i; ALTER INDEX "schön"."nach_straße" RENAME TO j');
is(one('latin', "SELECT table_name, rows, inserted FROM hybrid_restore('böden', '$manifest')"), '"schön"."größe"|500|0', 'Latin-1: restored');
is(shown('latin', '"schön"."größe"'), $before, 'as it was');
for my $name (qw(utf ascii))
{
	one($name, 'CREATE SCHEMA "schön"');
	is(one($name, "SELECT table_name, rows, inserted FROM hybrid_restore('attic', '$manifest')"), '"schön"."größe"|500|0', "from Latin-1 to $encodings{$name}");
	is(shown($name, '"schön"."größe"') =~ s/^.*\n//r, $before =~ s/^.*\n//r, 'names, defaults and comments as they were') if $name eq 'ascii';
	is(shown($name, '"schön"."größe"'), $before, 'all as it was') if $name eq 'utf';
}
# SQL_ASCII holds the UTF-8 that it got, and gives it back.
my $again = one('ascii', q{SELECT manifest FROM hybrid_backup('"schön"."größe"', 'attic')});
one('utf', 'CREATE SCHEMA zwei');
one('utf', "SELECT * FROM hybrid_restore('attic', '$again', target_schema => 'zwei')");
is(one('utf', 'SELECT count(*) FROM (TABLE "schön"."größe" EXCEPT ALL TABLE zwei."größe") x'), 0, 'by SQL_ASCII to UTF8: the same rows');
is(shown('utf', 'zwei."größe"') =~ s/^.*\n//r, $before =~ s/^.*\n//r, 'and the same names');
# And from UTF8 back to Latin-1.
my $back = one('utf', q{SELECT manifest FROM hybrid_backup('"schön"."größe"', 'attic')});
is(one('latin', "SELECT table_name FROM hybrid_restore('böden', '$back', target_name => 'zurück')"), '"schön"."zurück"', 'from UTF8 to Latin-1');
is((split /\n/, shown('latin', '"schön"."zurück"'))[0], (split /\n/, $before)[0], 'the same rows');

# Exports and imports.
my $export = one('latin', q{SELECT manifest FROM hybrid_export('"schön"."index_ä"', 'böden')});
is(one('latin', qq{SELECT inserted, dropped FROM hybrid_import('"schön"."index_ä"', 'böden', '$export')}), '0|0', 'Latin-1: imported');
for my $clause (qq{WITH (source = '"böden" $export')}, '')
{
	my ($ret, $out, $err) = $node->psql('latin', qq{SET "hybrid.import_from" = '"böden"'; DROP INDEX "schön"."index_ä"; CREATE INDEX "index_ä" ON "schön"."größe" USING hybrid (e) $clause});
	is($ret, 0, 'CREATE INDEX');
	like($err, qr/INFO:  index "index_\\u00e4": 500 rows linked/, $clause ? 'from the option' : 'from the setting');
}
is(one('latin', q{SELECT recall FROM hybrid_recall('"schön"."index_ä"', 5)}), '1', 'and its recall can be told');

# Characters of which a database has none.
one('utf', <<'SQL');
CREATE TABLE "表" (id int, "列" text DEFAULT '漢字', e vector(16)); INSERT INTO "表" VALUES (1, '日本', vec(1));
CREATE TABLE price (id int, t text); INSERT INTO price VALUES (1, 'zehn €');
CREATE INDEX "索引" ON "表" USING hybrid (e);
SQL
my ($foreign, $euro) = map { one('utf', "SELECT manifest FROM hybrid_backup('$_', 'attic')") } '"表"', 'price';
for my $case ([ $foreign, 'a name' ], [ $euro, 'a row' ])
{
	my ($which, $what) = @$case;
	my $err = refused('latin', "SELECT * FROM hybrid_restore('attic', '$which', target_schema => 'public', target_name => 'copy')");
	like($err, qr/22P05:.*LATIN1.*HINT:  Use a database of encoding UTF8\./s, "$what that Latin-1 has not: refused with a hint");
	is(one('latin', "SELECT to_regclass('copy') IS NULL"), 't', 'and nothing is made');
}
like(one('latin', "SELECT source FROM hybrid_archive_list('attic')"), qr/^utf\.public\.\\u8868$/m, 'a list shows them by their numbers');
is(one('japan', "SELECT table_name, rows FROM hybrid_restore('attic', '$foreign')"), 'public."表"|1', 'EUC_JP has them');
is(one('japan', 'SELECT id, "列" FROM "表"'), '1|日本', 'the row');
is(one('japan', 'INSERT INTO "表" (id, e) VALUES (2, vec(2)); SELECT "列" FROM "表" WHERE id = 2'), '漢字', 'and the default');
my $japan = one('japan', q{SELECT manifest FROM hybrid_backup('"表"', 'attic')});
is(one('utf', "SELECT table_name, rows FROM hybrid_restore('attic', '$japan', target_name => '表二')"), 'public."表二"|2', 'from EUC_JP to UTF8');
is(one('utf', 'SELECT * FROM "表" EXCEPT SELECT * FROM "表二"'), '', 'the same rows');

# Bytes of which nobody knows what they mean.
one('ascii', q{CREATE TABLE bytes (id int, t text); INSERT INTO bytes VALUES (1, 'plain'), (2, E'caf\xe9')});
my $err = refused('ascii', "SELECT * FROM hybrid_backup('bytes', 'attic')");
like($err, qr/22021: the row at \(0,2\) has bytes that are not UTF-8: 0xe9.*HINT:  Convert them/s, 'SQL_ASCII: bytes that are not UTF-8 are refused');
one('ascii', q{DELETE FROM bytes WHERE id = 2; COMMENT ON COLUMN bytes.t IS E'\xfc'});
like(refused('ascii', "SELECT * FROM hybrid_backup('bytes', 'attic')"), qr/22021: a text or name has bytes that are not UTF-8: 0xfc/, 'in a comment, too');
is(one('ascii', "SELECT count(*) FROM hybrid_archives WHERE table_name = 'bytes'"), 0, 'nothing is recorded');
# The type "char" cuts characters into bytes, and shows them by their numbers.
one('utf', q{CREATE TABLE cut (c "char"); INSERT INTO cut VALUES ('é'), ('x')});
my $cut = one('utf', "SELECT manifest FROM hybrid_backup('cut', 'attic')");
is(one('utf', "SELECT rows FROM hybrid_restore('attic', '$cut', target_name => 'cut_again')"), 2, 'half a character');
is(one('utf', 'SELECT count(*) FROM cut c JOIN cut_again a ON c.c = a.c'), 2, 'comes back');

crash_free($node, 'encodings');
done_testing();
