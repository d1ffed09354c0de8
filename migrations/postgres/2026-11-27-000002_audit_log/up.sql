-- What operators did: one row an action, written in the transaction of the action. Rows are added and never touched again.
-- `state_before` and `state_after` are JSON objects; there is nothing before what is made.

CREATE TABLE audit_log (
    entry_id UUID PRIMARY KEY,
    acted_at TIMESTAMPTZ NOT NULL,
    user_id UUID NOT NULL,
    action TEXT NOT NULL CHECK (action IN ('CREATE_CONCERT', 'CREATE_PERFORMANCE_DATE', 'CHANGE_ROOM', 'ADMIT_WAITERS')),
    -- A concert, a performance date or a room, as the action says.
    target_id UUID NOT NULL,
    state_before TEXT,
    state_after TEXT NOT NULL
);

CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only();
