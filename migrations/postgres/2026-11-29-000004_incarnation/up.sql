-- The incarnation of the stored data: its id changes whenever the data may have gone back, by a restored backup or by the
-- promotion of a standby without the last commits. Exactly one row.
CREATE TABLE incarnation (
    only_row BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (only_row),
    incarnation_id UUID NOT NULL,
    -- Queue tokens that entered at or after this instant were written in this incarnation.
    started_at TIMESTAMPTZ NOT NULL,
    -- The server and the timeline that this incarnation lives on; absent until a node has seen them.
    system_identifier BIGINT,
    timeline BIGINT,
    -- The transaction that wrote this row. A row that another transaction has put here is a copy, as by pg_restore.
    written_by BIGINT
);
INSERT INTO incarnation (incarnation_id, started_at, written_by)
VALUES (gen_random_uuid(), clock_timestamp(), pg_current_xact_id()::text::bigint);
