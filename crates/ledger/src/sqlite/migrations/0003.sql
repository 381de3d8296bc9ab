-- What control servers were asked to do. Not a part of the chain: history is what came of it.
-- Numbers are not given again after an order was forgotten.
CREATE TABLE orders (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    project           TEXT    NOT NULL,
    environment       TEXT    NOT NULL,
    -- What was asked for, and the same with all that was merged into it; both as JSON.
    asked             TEXT    NOT NULL,
    wanted            TEXT    NOT NULL,
    who               TEXT    NOT NULL,
    token             TEXT,
    message           TEXT,
    revision          TEXT,
    idempotency_key   TEXT,
    settle_ms         INTEGER NOT NULL,
    at_ms             INTEGER NOT NULL,
    due_ms            INTEGER NOT NULL,
    standing          TEXT    NOT NULL CHECK (standing IN ('waiting', 'running', 'merged', 'ended')),
    -- The newest claim, if there was one.
    generation        INTEGER NOT NULL DEFAULT 0,
    server            TEXT,
    since_ms          INTEGER,
    boot_id           TEXT,
    pid_namespace     TEXT,
    pid               INTEGER,
    process_start     INTEGER,
    expires_ms        INTEGER,
    expires_uptime_ms INTEGER,
    -- Since when it is merged or has ended, into what, and how (as JSON).
    closed_ms         INTEGER,
    merged_into       INTEGER,
    ended             TEXT,
    CHECK (standing <> 'running' OR (server IS NOT NULL AND expires_ms IS NOT NULL)),
    CHECK (standing <> 'merged' OR (merged_into IS NOT NULL AND closed_ms IS NOT NULL)),
    CHECK (standing <> 'ended' OR (ended IS NOT NULL AND closed_ms IS NOT NULL))
) STRICT;

CREATE INDEX orders_by_scope ON orders (project, environment, id);
CREATE INDEX orders_open ON orders (id) WHERE standing IN ('waiting', 'running');
CREATE INDEX orders_by_key ON orders (idempotency_key, at_ms) WHERE idempotency_key IS NOT NULL;
CREATE INDEX orders_closed ON orders (closed_ms) WHERE closed_ms IS NOT NULL;

-- One row: how often an order was placed, taken or ended.
CREATE TABLE orders_revision (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL
) STRICT;
INSERT INTO orders_revision (id, revision) VALUES (1, 0);

-- Who may ask for what. Of what proves a token, there is only a hash.
CREATE TABLE tokens (
    -- In which order they were added.
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT    NOT NULL UNIQUE,
    name       TEXT    NOT NULL,
    hash       BLOB    NOT NULL CHECK (length(hash) = 32),
    scope      TEXT    NOT NULL,
    made_by    TEXT    NOT NULL,
    made_ms    INTEGER NOT NULL,
    expires_ms INTEGER,
    used_ms    INTEGER,
    revoked_ms INTEGER
) STRICT;
