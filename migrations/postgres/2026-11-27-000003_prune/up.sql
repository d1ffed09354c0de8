-- What is pruned: tokens that ended long ago and under which nothing was reserved, and answers that are no longer given.

-- How many tokens of a room were deleted, and how many of those had left the line unadmitted: tickets and departures stay
-- numbered without a gap, these counted in. Apart from the line, so that pruning locks nobody out.
CREATE TABLE pruned_tokens (
    room_id UUID PRIMARY KEY REFERENCES rooms (room_id),
    tokens BIGINT NOT NULL CHECK (tokens > 0),
    departures BIGINT NOT NULL CHECK (departures >= 0 AND departures <= tokens)
);

-- Whether anything was reserved under a token: asked for each one that is deleted, by the foreign key as well.
CREATE INDEX reservations_by_token ON reservations (token_id);
