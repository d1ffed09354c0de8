-- Registry of the nodes that share this database: one row a node, renewed every few seconds and deleted when it is old
-- (ADR 0019). Unlogged: it is worth nothing after a crash, and costs no flush and no replication.

CREATE UNLOGGED TABLE nodes (
    node_id UUID PRIMARY KEY,
    started_at TIMESTAMPTZ NOT NULL,
    seen_at TIMESTAMPTZ NOT NULL,
    -- Public names of the secrets whose tokens the node accepts, the signing one first.
    secrets TEXT[] NOT NULL,
    rule_names TEXT[] NOT NULL,
    rule_values TEXT[] NOT NULL
);
