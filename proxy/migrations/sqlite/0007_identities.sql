-- Which applications, and digests of which of their secrets' hashes, this node had in force. `secret` is empty for the
-- application itself.
CREATE TABLE identities (
    zone        TEXT NOT NULL,
    application TEXT NOT NULL,
    secret      TEXT NOT NULL,
    PRIMARY KEY (zone, application, secret)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 6;
