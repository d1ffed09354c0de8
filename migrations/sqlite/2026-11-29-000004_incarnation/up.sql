-- The incarnation of the stored data: its id changes whenever the data may have gone back, by a restored backup. Exactly
-- one row.
CREATE TABLE incarnation (
    only_row INTEGER PRIMARY KEY DEFAULT 1 CHECK (only_row = 1),
    incarnation_id BLOB NOT NULL CHECK (length(incarnation_id) = 16),
    -- Queue tokens that entered at or after this instant were written in this incarnation.
    started_at INTEGER NOT NULL
) STRICT;
INSERT INTO incarnation (incarnation_id, started_at)
VALUES (randomblob(16), CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000);
