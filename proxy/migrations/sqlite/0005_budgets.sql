-- What is used of budgets that outlast a process. Rates are not stored.
CREATE TABLE budgets (
    zone TEXT NOT NULL,
    budget TEXT NOT NULL,
    subject TEXT NOT NULL,
    used INTEGER NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (zone, budget, subject)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 4;
