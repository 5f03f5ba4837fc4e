-- Of the 10 true nearest items of every query, the share that the index finds.
SET enable_indexscan = off;
CREATE TEMP TABLE exact AS
SELECT q.id AS query, near.id
  FROM queries q CROSS JOIN LATERAL (SELECT id FROM items ORDER BY embedding <=> q.embedding LIMIT 10) near;
RESET enable_indexscan;

SET enable_seqscan = off;
CREATE TEMP TABLE found AS
SELECT q.id AS query, near.id
  FROM queries q CROSS JOIN LATERAL (SELECT id FROM items ORDER BY embedding <=> q.embedding LIMIT 10) near;

SELECT round(count(found.id)::numeric / count(*), 3) FROM exact LEFT JOIN found USING (query, id);
