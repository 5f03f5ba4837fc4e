CREATE INDEX items_embedding_idx ON items USING hybrid (embedding vector_cosine_ops, seen_at)
  WITH (recent_threshold = '60 days', partition_interval = '90 days');
