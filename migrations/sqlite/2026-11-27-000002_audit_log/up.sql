-- What operators did: one row an action, written in the transaction of the action. Rows are added and never touched again.
-- `state_before` and `state_after` are JSON objects; there is nothing before what is made.

CREATE TABLE audit_log (
    entry_id BLOB PRIMARY KEY CHECK (length(entry_id) = 16),
    acted_at INTEGER NOT NULL,
    user_id BLOB NOT NULL CHECK (length(user_id) = 16),
    action TEXT NOT NULL CHECK (action IN ('CREATE_CONCERT', 'CREATE_PERFORMANCE_DATE', 'CHANGE_ROOM', 'ADMIT_WAITERS')),
    -- A concert, a performance date or a room, as the action says.
    target_id BLOB NOT NULL CHECK (length(target_id) = 16),
    state_before TEXT,
    state_after TEXT NOT NULL
) STRICT;

CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
