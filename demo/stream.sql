-- Rows that keep coming: the newest thousand are recent. What the worker does by itself is done here at once.
CREATE TABLE stream (id int PRIMARY KEY, embedding vector(384) NOT NULL);
CREATE INDEX stream_embedding_idx ON stream USING hybrid (embedding vector_cosine_ops)
  WITH (recent_rows = 1000, pending_rows = 250);
DO $$
BEGIN
    FOR part IN 0 .. 11 LOOP
        INSERT INTO stream SELECT id, embedding FROM items WHERE id % 12 = part;
        PERFORM hybrid_compact('stream_embedding_idx');
    END LOOP;
END $$;
