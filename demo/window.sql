SELECT to_char(seen_at, 'YYYY-MM-DD') AS seen,
       round((embedding <=> (SELECT embedding FROM queries WHERE id = 1))::numeric, 3) AS distance,
       text
  FROM items
 WHERE seen_at BETWEEN now() - interval '200 days' AND now() - interval '150 days'
 ORDER BY embedding <=> (SELECT embedding FROM queries WHERE id = 1)
 LIMIT 5;
