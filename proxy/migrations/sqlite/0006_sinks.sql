-- How far each notification sink has come in this node's ledger. `body` is JSON.
CREATE TABLE sink_cursors (
    zone TEXT NOT NULL,
    sink TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (zone, sink)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 5;
