-- What the nodes of a fleet share. Facts that never change are in `body` (JSON); what an operation may change has a
-- column of its own. Columns are named as in the store of a single node, so that both are written by one set of
-- statements.
--
-- Every row carries the number of the commit that wrote it last (`rev`). A node that has seen commit n asks for the
-- rows with a later number, and knows then what the store knows. Numbers are given under the lock of the one row of
-- `feed`, so that a later number is never visible before an earlier one.
CREATE TABLE feed (
    one BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (one),
    seq BIGINT NOT NULL
);
INSERT INTO feed (seq) VALUES (0);

CREATE FUNCTION number_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT seq + 1 INTO NEW.rev FROM feed;
    RETURN NEW;
END $$;

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE records (
    zone       TEXT NOT NULL,
    id         TEXT NOT NULL,
    body       TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked    BIGINT NOT NULL,
    rev        BIGINT NOT NULL,
    PRIMARY KEY (zone, id)
);
CREATE INDEX records_by_expiry ON records (expires_at);

CREATE TABLE sessions (
    zone                  TEXT NOT NULL,
    id                    TEXT NOT NULL,
    body                  TEXT NOT NULL,
    status                TEXT NOT NULL,
    lease_generation      BIGINT NOT NULL,
    last_heartbeat_at     BIGINT,
    heartbeat_deadline_at BIGINT,
    terminated_at         BIGINT,
    termination_reason    TEXT,
    rev                   BIGINT NOT NULL,
    PRIMARY KEY (zone, id)
);

CREATE TABLE delegations (
    zone           TEXT NOT NULL,
    id             TEXT NOT NULL,
    source_session TEXT NOT NULL,
    target_session TEXT NOT NULL,
    body           TEXT NOT NULL,
    status         TEXT NOT NULL,
    version        BIGINT NOT NULL,
    revoked_at     BIGINT,
    rev            BIGINT NOT NULL,
    PRIMARY KEY (zone, id),
    FOREIGN KEY (zone, source_session) REFERENCES sessions (zone, id) ON DELETE CASCADE,
    FOREIGN KEY (zone, target_session) REFERENCES sessions (zone, id) ON DELETE CASCADE
);
CREATE INDEX delegations_by_source ON delegations (zone, source_session);
CREATE INDEX delegations_by_target ON delegations (zone, target_session);

-- Answers kept for repeated requests. `key_digest` is keyed: the caller's key itself is never stored.
CREATE TABLE receipts (
    zone           TEXT NOT NULL,
    operation      TEXT NOT NULL,
    scope          TEXT NOT NULL,
    key_digest     BYTEA NOT NULL,
    request_digest BYTEA NOT NULL,
    result         TEXT NOT NULL,
    response       TEXT NOT NULL,
    key_kind       TEXT NOT NULL,
    created_at     BIGINT NOT NULL,
    expires_at     BIGINT NOT NULL,
    rev            BIGINT NOT NULL,
    PRIMARY KEY (zone, operation, scope, key_digest)
);
CREATE INDEX receipts_by_expiry ON receipts (expires_at);

CREATE TABLE graph_epochs (
    zone  TEXT PRIMARY KEY,
    epoch BIGINT NOT NULL,
    rev   BIGINT NOT NULL
);

CREATE TABLE frozen_zones (
    zone      TEXT PRIMARY KEY,
    frozen_at BIGINT NOT NULL,
    rev       BIGINT NOT NULL
);

CREATE TABLE applications (
    zone        TEXT NOT NULL,
    application TEXT NOT NULL,
    cut_at      BIGINT NOT NULL,
    blocked     BIGINT NOT NULL,
    rev         BIGINT NOT NULL,
    PRIMARY KEY (zone, application)
);

CREATE TABLE tombstones (
    kind  TEXT NOT NULL,
    zone  TEXT NOT NULL,
    value TEXT NOT NULL,
    at    BIGINT NOT NULL,
    rev   BIGINT NOT NULL,
    PRIMARY KEY (kind, zone, value)
);

CREATE TABLE agent_services (
    zone TEXT NOT NULL,
    id   TEXT NOT NULL,
    body TEXT NOT NULL,
    rev  BIGINT NOT NULL,
    PRIMARY KEY (zone, id)
);

-- `payload` and `outcome` are what callers sent along; nothing here looks into them, so they are never loaded.
CREATE TABLE invocations (
    zone                TEXT NOT NULL,
    id                  TEXT NOT NULL,
    body                TEXT NOT NULL,
    status              TEXT NOT NULL,
    attempts            BIGINT NOT NULL,
    deadline_at         BIGINT,
    started_at          BIGINT,
    cancel_requested_at BIGINT,
    cancel_reason       TEXT,
    completed_at        BIGINT,
    payload             TEXT NOT NULL,
    outcome             TEXT,
    rev                 BIGINT NOT NULL,
    PRIMARY KEY (zone, id)
);

DO $$
DECLARE
    name TEXT;
BEGIN
    FOREACH name IN ARRAY ARRAY['records', 'sessions', 'delegations', 'receipts', 'graph_epochs', 'frozen_zones',
        'applications', 'tombstones', 'agent_services', 'invocations']
    LOOP
        EXECUTE format('CREATE INDEX %I ON %I (rev)', name || '_by_rev', name);
        EXECUTE format('CREATE TRIGGER number_row BEFORE INSERT OR UPDATE ON %I
                        FOR EACH ROW EXECUTE FUNCTION number_row()', name);
    END LOOP;
END $$;
