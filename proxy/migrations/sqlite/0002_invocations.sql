-- Where agents can be reached, and jobs for them. A service's row is always written whole, under its zone's lock.
CREATE TABLE agent_services (
    zone TEXT NOT NULL,
    id   TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (zone, id)
) STRICT, WITHOUT ROWID;

-- `payload` and `outcome` are what callers sent along; nothing here looks into them, so they are never loaded.
CREATE TABLE invocations (
    zone                TEXT NOT NULL,
    id                  TEXT NOT NULL,
    body                TEXT NOT NULL,
    status              TEXT NOT NULL,
    attempts            INTEGER NOT NULL,
    deadline_at         INTEGER,
    started_at          INTEGER,
    cancel_requested_at INTEGER,
    cancel_reason       TEXT,
    completed_at        INTEGER,
    payload             TEXT NOT NULL,
    outcome             TEXT,
    PRIMARY KEY (zone, id)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 2;
