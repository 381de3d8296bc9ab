-- A deployment can be taken up again, so there is one more kind of entry, and one that is stuck ends
-- more than once. What may follow what is checked as it is written. A table's checks cannot be
-- changed: the rows move to a new one, byte by byte, with their hashes.
CREATE TABLE entries_2 (
    seq         INTEGER PRIMARY KEY,
    kind        TEXT    NOT NULL CHECK (kind IN ('begun', 'step', 'resumed', 'ended')),
    project     TEXT    NOT NULL,
    environment TEXT    NOT NULL,
    number      INTEGER NOT NULL CHECK (number > 0),
    payload     TEXT    NOT NULL,
    at_ms       INTEGER NOT NULL,
    prev_hash   BLOB    NOT NULL CHECK (length(prev_hash) = 32),
    hash        BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;
INSERT INTO entries_2 SELECT * FROM entries ORDER BY seq;
DROP TABLE entries;
ALTER TABLE entries_2 RENAME TO entries;

CREATE INDEX entries_by_deployment ON entries (project, environment, number);
CREATE UNIQUE INDEX begun_once ON entries (project, environment, number) WHERE kind = 'begun';

CREATE TRIGGER entries_stay_as_they_are BEFORE UPDATE ON entries
BEGIN
    SELECT RAISE(ABORT, 'an entry of the ledger is never changed');
END;
CREATE TRIGGER entries_stay BEFORE DELETE ON entries
BEGIN
    SELECT RAISE(ABORT, 'an entry of the ledger is never deleted');
END;
-- Also keeps INSERT OR REPLACE from replacing an entry, which fires no delete trigger.
CREATE TRIGGER entries_come_last BEFORE INSERT ON entries
WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM entries)
BEGIN
    SELECT RAISE(ABORT, 'an entry of the ledger comes after all others');
END;
