SELECT manifest, objects, pg_size_pretty(bytes) AS size, round(bytes::numeric / rows, 1) AS "bytes a row"
  FROM hybrid_export('items_embedding_idx', 'attic');
