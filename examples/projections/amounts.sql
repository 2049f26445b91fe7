-- azoth: projection amounts
--
-- What each account has paid: how many transfers, and percentiles of their amounts. Percentiles want a
-- histogram for each account, which is awkward in SQL: amounts.c keeps it.
-- azoth: load amounts.so
-- azoth: on-error custom

-- azoth: migration 1 create the table
CREATE TABLE amounts (
    account INTEGER PRIMARY KEY,
    transfers INTEGER NOT NULL,
    p50 INTEGER NOT NULL,
    p90 INTEGER NOT NULL,
    p99 INTEGER NOT NULL,
    histogram BLOB NOT NULL
);

-- azoth: on transferred in C
