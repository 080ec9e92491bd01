-- The runtime state of one node. Facts that never change are in `body` (JSON); what an operation may change has a
-- column of its own, so that two operations on one row never write over each other.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE epochs (
    epoch      TEXT PRIMARY KEY,
    started_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE records (
    zone       TEXT NOT NULL,
    id         TEXT NOT NULL,
    body       TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked    INTEGER NOT NULL,
    PRIMARY KEY (zone, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX records_by_expiry ON records (expires_at);

CREATE TABLE sessions (
    zone                  TEXT NOT NULL,
    id                    TEXT NOT NULL,
    body                  TEXT NOT NULL,
    status                TEXT NOT NULL,
    lease_generation      INTEGER NOT NULL,
    last_heartbeat_at     INTEGER,
    heartbeat_deadline_at INTEGER,
    terminated_at         INTEGER,
    termination_reason    TEXT,
    PRIMARY KEY (zone, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE delegations (
    zone           TEXT NOT NULL,
    id             TEXT NOT NULL,
    source_session TEXT NOT NULL,
    target_session TEXT NOT NULL,
    body           TEXT NOT NULL,
    status         TEXT NOT NULL,
    version        INTEGER NOT NULL,
    revoked_at     INTEGER,
    PRIMARY KEY (zone, id),
    FOREIGN KEY (zone, source_session) REFERENCES sessions (zone, id) ON DELETE CASCADE,
    FOREIGN KEY (zone, target_session) REFERENCES sessions (zone, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX delegations_by_source ON delegations (zone, source_session);
CREATE INDEX delegations_by_target ON delegations (zone, target_session);

-- Answers kept for repeated requests. `key_digest` is keyed: the caller's key itself is never stored.
CREATE TABLE receipts (
    zone           TEXT NOT NULL,
    operation      TEXT NOT NULL,
    scope          TEXT NOT NULL,
    key_digest     BLOB NOT NULL,
    request_digest BLOB NOT NULL,
    result         TEXT NOT NULL,
    response       TEXT NOT NULL,
    key_kind       TEXT NOT NULL,
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    PRIMARY KEY (zone, operation, scope, key_digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE graph_epochs (
    zone  TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE frozen_zones (
    zone      TEXT PRIMARY KEY,
    frozen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE applications (
    zone        TEXT NOT NULL,
    application TEXT NOT NULL,
    cut_at      INTEGER NOT NULL,
    blocked     INTEGER NOT NULL,
    PRIMARY KEY (zone, application)
) STRICT, WITHOUT ROWID;

CREATE TABLE tombstones (
    kind  TEXT NOT NULL,
    zone  TEXT NOT NULL,
    value TEXT NOT NULL,
    at    INTEGER NOT NULL,
    PRIMARY KEY (kind, zone, value)
) STRICT, WITHOUT ROWID;

CREATE TABLE ledger_heads (
    zone TEXT PRIMARY KEY,
    seq  INTEGER NOT NULL,
    hash TEXT NOT NULL
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 1;
