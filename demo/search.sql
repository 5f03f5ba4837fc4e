SELECT round((embedding <=> (SELECT embedding FROM queries WHERE id = :query))::numeric, 3) AS distance,
       category,
       text
  FROM items
 ORDER BY embedding <=> (SELECT embedding FROM queries WHERE id = :query)
 LIMIT 5;
