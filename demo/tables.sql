CREATE EXTENSION hybridvec;

CREATE TABLE items (
    id int PRIMARY KEY,
    category text NOT NULL,
    text text NOT NULL,
    embedding vector(384) NOT NULL,
    seen_at timestamptz
);

-- Texts that are not among the items, with their embeddings: what the demo searches for.
CREATE TABLE queries (
    id int PRIMARY KEY,
    text text NOT NULL,
    embedding vector(384) NOT NULL
);
