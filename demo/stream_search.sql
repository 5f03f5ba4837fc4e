-- Every row is found as its own nearest, wherever it has moved to.
SET enable_seqscan = off;
SELECT count(*) || ' of ' || (SELECT count(*) FROM stream)
  FROM stream s
 WHERE (SELECT n.embedding <=> s.embedding FROM stream n ORDER BY n.embedding <=> s.embedding LIMIT 1) < 1e-6;
