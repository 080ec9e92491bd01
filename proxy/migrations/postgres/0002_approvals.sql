-- See the store of a single node. `approved` is 1, 0 or, while nobody has answered, NULL.
CREATE TABLE approvals (
    zone            TEXT NOT NULL,
    id              TEXT NOT NULL,
    body            TEXT NOT NULL,
    approved        BIGINT,
    decided_at      BIGINT,
    decided_by      TEXT,
    reason          TEXT,
    consumed_at     BIGINT,
    consumed_record TEXT,
    rev             BIGINT NOT NULL,
    PRIMARY KEY (zone, id)
);
CREATE INDEX approvals_by_rev ON approvals (rev);
CREATE TRIGGER number_row BEFORE INSERT OR UPDATE ON approvals FOR EACH ROW EXECUTE FUNCTION number_row();
