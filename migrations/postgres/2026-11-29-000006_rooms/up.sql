-- Openings and pauses of rooms; rooms without waiters are left alone (ADR 0023).

-- The opening that an operator set, and the one by the dates of the concert whose own room it is.
ALTER TABLE rooms ADD COLUMN opens_at TIMESTAMPTZ;
ALTER TABLE rooms ADD COLUMN sales_open_at TIMESTAMPTZ;
-- PAUSED is stored as HOLD with this: a node of an earlier version admits nobody.
ALTER TABLE rooms ADD COLUMN paused BOOLEAN NOT NULL DEFAULT FALSE
    CONSTRAINT rooms_paused_check CHECK (NOT paused OR mode = 'HOLD');

-- When the pause of its room began, while that lasts: the token does not expire meanwhile.
ALTER TABLE queue_tokens ADD COLUMN paused_at TIMESTAMPTZ
    CONSTRAINT queue_tokens_paused_check CHECK (paused_at IS NULL OR status = 'ACTIVE');
DROP INDEX queue_tokens_lapsing;
CREATE INDEX queue_tokens_lapsing ON queue_tokens (expires_at) WHERE status = 'ACTIVE' AND paused_at IS NULL;

-- The lines with waiters. A column of its own keeps its value while the line moves, so that moving it stays a HOT update.
ALTER TABLE lines ADD COLUMN is_waiting BOOLEAN GENERATED ALWAYS AS (waiting > 0) STORED;
CREATE INDEX lines_waiting ON lines (room_id) WHERE is_waiting;
-- Nothing looks for rooms by their ticks any more: those without waiters have old ones.
DROP INDEX rooms_by_next_tick;
DROP INDEX rooms_open;

-- The openings of concerts that are there already.
UPDATE rooms SET sales_open_at = opening.at, next_tick_at = opening.at, version = version + 1
FROM (
    SELECT concerts.room_id, min(on_sale_at) AS at FROM concerts JOIN performance_dates USING (concert_id)
    WHERE concerts.room_id <> '00000000-0000-7000-8000-000000000001'
    GROUP BY concerts.room_id HAVING bool_and(coalesce(on_sale_at > now(), FALSE))
) AS opening
WHERE rooms.room_id = opening.room_id;
