-- What it is, and of which schema. `name` is random.
CREATE TABLE shiplap.ledger (
    id     integer PRIMARY KEY CHECK (id = 1),
    schema integer NOT NULL,
    name   text    NOT NULL
);

-- The one clock of all that use the ledger, in milliseconds since 1970.
CREATE FUNCTION shiplap.now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint
$$;

-- Every fact about a deployment, in the order in which they became known.
CREATE TABLE shiplap.entries (
    seq         bigint PRIMARY KEY,
    kind        text   NOT NULL CHECK (kind IN ('begun', 'step', 'resumed', 'ended')),
    project     text   NOT NULL,
    environment text   NOT NULL,
    number      bigint NOT NULL CHECK (number > 0),
    payload     text   NOT NULL,
    at_ms       bigint NOT NULL,
    prev_hash   bytea  NOT NULL CHECK (length(prev_hash) = 32),
    hash        bytea  NOT NULL CHECK (length(hash) = 32)
);
CREATE INDEX entries_by_deployment ON shiplap.entries (project, environment, number);
CREATE UNIQUE INDEX begun_once ON shiplap.entries (project, environment, number)
    WHERE kind = 'begun';

CREATE FUNCTION shiplap.entries_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'an entry of the ledger is never changed and never deleted';
END
$$;
CREATE TRIGGER entries_stay_as_they_are BEFORE UPDATE OR DELETE ON shiplap.entries
    FOR EACH ROW EXECUTE FUNCTION shiplap.entries_stay();
CREATE TRIGGER entries_stay BEFORE TRUNCATE ON shiplap.entries
    FOR EACH STATEMENT EXECUTE FUNCTION shiplap.entries_stay();

CREATE FUNCTION shiplap.entries_come_last() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.seq IS DISTINCT FROM (SELECT coalesce(max(seq), 0) + 1 FROM shiplap.entries) THEN
        RAISE EXCEPTION 'an entry of the ledger comes after all others';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER entries_come_last BEFORE INSERT ON shiplap.entries
    FOR EACH ROW EXECUTE FUNCTION shiplap.entries_come_last();

-- The values of an environment, by the entry that began the deployment.
CREATE TABLE shiplap.bindings (
    entry  bigint PRIMARY KEY REFERENCES shiplap.entries (seq),
    nonce  bytea  NOT NULL CHECK (length(nonce) = 24),
    sealed bytea  NOT NULL
);

-- One row, which whoever writes an entry locks: which key it is, and the last entry sealed with it;
-- neither before the first.
CREATE TABLE shiplap.chain (
    id        integer PRIMARY KEY CHECK (id = 1),
    key_check bytea CHECK (length(key_check) = 32),
    head_seq  bigint NOT NULL,
    head_seal bytea CHECK (length(head_seal) = 32)
);
INSERT INTO shiplap.chain (id, head_seq) VALUES (1, 0);

-- One row per scope, kept after release so that the generation only grows. `mark` is random, and
-- tells whoever took it that it did.
CREATE TABLE shiplap.leases (
    project       text   NOT NULL,
    environment   text   NOT NULL,
    generation    bigint NOT NULL CHECK (generation >= 0),
    standing      text   NOT NULL CHECK (standing IN ('held', 'released')),
    mark          bytea,
    holder        text,
    machine       text,
    boot_id       text,
    pid_namespace text,
    pid           bigint,
    process_start bigint,
    since_ms      bigint,
    expires_ms    bigint,
    PRIMARY KEY (project, environment)
);

-- What control servers were asked to do. Not a part of the chain: history is what came of it.
CREATE TABLE shiplap.orders (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Random, and tells whoever placed it that it did.
    mark            bytea  NOT NULL,
    project         text   NOT NULL,
    environment     text   NOT NULL,
    -- What was asked for, and the same with all that was merged into it; both as JSON.
    asked           text   NOT NULL,
    wanted          text   NOT NULL,
    who             text   NOT NULL,
    token           text,
    message         text,
    revision        text,
    idempotency_key text,
    settle_ms       bigint NOT NULL,
    at_ms           bigint NOT NULL,
    due_ms          bigint NOT NULL,
    standing        text   NOT NULL CHECK (standing IN ('waiting', 'running', 'merged', 'ended')),
    -- The newest claim, if there was one.
    generation      bigint NOT NULL DEFAULT 0,
    claim_mark      bytea,
    server          text,
    since_ms        bigint,
    machine         text,
    boot_id         text,
    pid_namespace   text,
    pid             bigint,
    process_start   bigint,
    expires_ms      bigint,
    -- Since when it is merged or has ended, into what, and how (as JSON).
    closed_ms       bigint,
    merged_into     bigint,
    ended           text,
    CHECK (standing <> 'running' OR (server IS NOT NULL AND expires_ms IS NOT NULL)),
    CHECK (standing <> 'merged' OR (merged_into IS NOT NULL AND closed_ms IS NOT NULL)),
    CHECK (standing <> 'ended' OR (ended IS NOT NULL AND closed_ms IS NOT NULL))
);
CREATE INDEX orders_by_scope ON shiplap.orders (project, environment, id);
CREATE INDEX orders_open ON shiplap.orders (id) WHERE standing IN ('waiting', 'running');
CREATE INDEX orders_by_key ON shiplap.orders (idempotency_key, at_ms)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX orders_closed ON shiplap.orders (closed_ms) WHERE closed_ms IS NOT NULL;

-- One row, which whoever changes an order locks: how often one was placed, taken or ended.
CREATE TABLE shiplap.orders_revision (
    id       integer PRIMARY KEY CHECK (id = 1),
    revision bigint NOT NULL
);
INSERT INTO shiplap.orders_revision (id, revision) VALUES (1, 0);

-- Who may ask for what. Of what proves a token, there is only a hash.
CREATE TABLE shiplap.tokens (
    -- In which order they were added.
    seq        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id         text   NOT NULL UNIQUE,
    name       text   NOT NULL,
    hash       bytea  NOT NULL CHECK (length(hash) = 32),
    scope      text   NOT NULL,
    made_by    text   NOT NULL,
    made_ms    bigint NOT NULL,
    expires_ms bigint,
    used_ms    bigint,
    revoked_ms bigint
);
