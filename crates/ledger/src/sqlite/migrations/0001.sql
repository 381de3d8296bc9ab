-- Every fact about a deployment, in the order in which they became known.
CREATE TABLE entries (
    seq         INTEGER PRIMARY KEY,
    kind        TEXT    NOT NULL CHECK (kind IN ('begun', 'step', 'ended')),
    project     TEXT    NOT NULL,
    environment TEXT    NOT NULL,
    number      INTEGER NOT NULL CHECK (number > 0),
    payload     TEXT    NOT NULL,
    at_ms       INTEGER NOT NULL,
    prev_hash   BLOB    NOT NULL CHECK (length(prev_hash) = 32),
    hash        BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

CREATE INDEX entries_by_deployment ON entries (project, environment, number);
CREATE UNIQUE INDEX begun_once ON entries (project, environment, number) WHERE kind = 'begun';
CREATE UNIQUE INDEX ended_once ON entries (project, environment, number) WHERE kind = 'ended';

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

-- The values of an environment, by the entry that began the deployment.
CREATE TABLE bindings (
    entry  INTEGER PRIMARY KEY REFERENCES entries (seq),
    nonce  BLOB NOT NULL CHECK (length(nonce) = 24),
    sealed BLOB NOT NULL
) STRICT;

-- One row, from the first entry on: which key it is, and the last entry sealed with it.
CREATE TABLE chain (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    key_check BLOB    NOT NULL CHECK (length(key_check) = 32),
    head_seq  INTEGER NOT NULL,
    head_seal BLOB    NOT NULL CHECK (length(head_seal) = 32)
) STRICT;

-- One row per scope, kept after release so that the generation only grows.
CREATE TABLE leases (
    project           TEXT    NOT NULL,
    environment       TEXT    NOT NULL,
    generation        INTEGER NOT NULL CHECK (generation > 0),
    standing          TEXT    NOT NULL CHECK (standing IN ('held', 'released')),
    holder            TEXT    NOT NULL,
    boot_id           TEXT    NOT NULL,
    pid_namespace     TEXT    NOT NULL,
    pid               INTEGER NOT NULL,
    process_start     INTEGER NOT NULL,
    since_ms          INTEGER NOT NULL,
    expires_ms        INTEGER NOT NULL,
    expires_uptime_ms INTEGER NOT NULL,
    PRIMARY KEY (project, environment)
) STRICT, WITHOUT ROWID;
