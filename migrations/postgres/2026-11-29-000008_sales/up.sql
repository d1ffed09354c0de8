-- The lowest price among the unsold seats of a date is the first entry of this index; a sold-out date has no entry (ADR 0024).
CREATE INDEX seats_unsold ON seats (performance_date_id, price) WHERE status <> 'UNAVAILABLE';
