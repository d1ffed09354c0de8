CREATE INDEX rooms_open ON rooms (room_id) WHERE mode = 'OPEN';
CREATE INDEX rooms_by_next_tick ON rooms (next_tick_at);
DROP INDEX lines_waiting;
DROP INDEX queue_tokens_lapsing;
ALTER TABLE queue_tokens DROP COLUMN paused_at;
CREATE INDEX queue_tokens_lapsing ON queue_tokens (expires_at) WHERE status = 'ACTIVE';
ALTER TABLE rooms DROP COLUMN paused;
ALTER TABLE rooms DROP COLUMN sales_open_at;
ALTER TABLE rooms DROP COLUMN opens_at;
