-- What a person agreed to at an authorization server. `sealed` holds the tokens, sealed for exactly this row; a
-- connection that was ended keeps its row and loses them.
CREATE TABLE connections (
    zone         TEXT NOT NULL,
    provider     TEXT NOT NULL,
    subject      TEXT NOT NULL,
    id           TEXT NOT NULL,
    version      INTEGER NOT NULL,
    status       TEXT NOT NULL,
    sealed       BLOB NOT NULL,
    renewable    INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    refreshed_at INTEGER NOT NULL,
    expires_at   INTEGER,
    claimed_by   TEXT,
    claimed_until INTEGER NOT NULL,
    PRIMARY KEY (zone, provider, subject)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 4;
