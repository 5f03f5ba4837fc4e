SELECT action, segments_in, segment_out, rows, round(extract(epoch FROM duration) * 1000) AS ms
  FROM hybrid_history('stream_embedding_idx')
 ORDER BY started DESC
 LIMIT 8;
