-- Of the 10 nearest items that this index finds for every query, the share that an exact scan finds, too.
SET enable_seqscan = off;
CREATE TEMP TABLE found AS
SELECT q.id AS query, near.id
  FROM queries q CROSS JOIN LATERAL (SELECT id FROM items ORDER BY embedding <=> q.embedding LIMIT 10) near;
RESET enable_seqscan;
SET enable_indexscan = off;
CREATE TEMP TABLE exact AS
SELECT q.id AS query, near.id
  FROM queries q CROSS JOIN LATERAL (SELECT id FROM items ORDER BY embedding <=> q.embedding LIMIT 10) near;
SELECT round(count(found.id)::numeric / count(*), 3) FROM exact LEFT JOIN found USING (query, id);
