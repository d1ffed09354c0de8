DROP INDEX reservations_by_token;
DROP TABLE pruned_tokens;
