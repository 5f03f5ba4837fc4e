EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF)
SELECT id, text FROM items ORDER BY embedding <=> (SELECT embedding FROM queries WHERE id = 1) LIMIT 5;
