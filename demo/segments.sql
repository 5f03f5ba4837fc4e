SELECT id, kind, state, rows, lists, left(min_key, 10) AS from, left(max_key, 10) AS to, pages
  FROM hybrid_segments('items_embedding_idx');
