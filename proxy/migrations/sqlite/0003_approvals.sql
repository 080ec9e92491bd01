-- What a person has to say yes to before it is minted. What was asked is in `body`; what was answered, and the one use
-- of a yes, have columns of their own.
CREATE TABLE approvals (
    zone            TEXT NOT NULL,
    id              TEXT NOT NULL,
    body            TEXT NOT NULL,
    approved        INTEGER,
    decided_at      INTEGER,
    decided_by      TEXT,
    reason          TEXT,
    consumed_at     INTEGER,
    consumed_record TEXT,
    PRIMARY KEY (zone, id)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 3;
