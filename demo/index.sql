CREATE INDEX items_embedding_idx ON items USING hybrid (embedding vector_cosine_ops);
