DROP INDEX seats_unsold;
