EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF)
SELECT id FROM items
 WHERE seen_at BETWEEN now() - interval '200 days' AND now() - interval '150 days'
 ORDER BY embedding <=> (SELECT embedding FROM queries WHERE id = 1)
 LIMIT 5;
