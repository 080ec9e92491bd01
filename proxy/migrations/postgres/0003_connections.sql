-- See the store of a single node. `claimed_by` is the node that asks for fresh tokens, until `claimed_until`: a refresh
-- token that is used twice ends the connection at many servers.
CREATE TABLE connections (
    zone          TEXT NOT NULL,
    provider      TEXT NOT NULL,
    subject       TEXT NOT NULL,
    id            TEXT NOT NULL,
    version       BIGINT NOT NULL,
    status        TEXT NOT NULL,
    sealed        BYTEA NOT NULL,
    renewable     BIGINT NOT NULL,
    created_at    BIGINT NOT NULL,
    refreshed_at  BIGINT NOT NULL,
    expires_at    BIGINT,
    claimed_by    TEXT,
    claimed_until BIGINT NOT NULL,
    rev           BIGINT NOT NULL,
    PRIMARY KEY (zone, provider, subject)
);
CREATE INDEX connections_by_rev ON connections (rev);
CREATE TRIGGER number_row BEFORE INSERT OR UPDATE ON connections FOR EACH ROW EXECUTE FUNCTION number_row();
