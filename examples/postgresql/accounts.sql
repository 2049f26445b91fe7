-- azoth: projection accounts
--
-- The bank's accounts on a PostgreSQL server, in the schema "accounts". How to reach it is left to projector.postgresql
-- in azoth.conf, to AZOTH_PROJECTOR_POSTGRESQL, or to libpq's own environment: no password stands here.
--
--     azoth projection check accounts.sql --target
--
-- azoth: target postgresql
-- azoth: on-error retry 5 100ms..5s then dead-letter

-- azoth: migration 1 create accounts
CREATE TABLE accounts (
    account BIGINT PRIMARY KEY,
    balance NUMERIC NOT NULL,
    updated TIMESTAMPTZ NOT NULL,
    opened_with JSONB NOT NULL
);
-- azoth: undo
DROP TABLE accounts;

-- azoth: migration 2 who has how much
CREATE VIEW richest AS SELECT account, balance FROM accounts ORDER BY balance DESC LIMIT 10;
-- azoth: undo
DROP VIEW richest;

-- azoth: on opened
INSERT INTO accounts VALUES (:account, :amount, to_timestamp(@time / 1e9), @payload);

-- azoth: on transferred
UPDATE accounts SET balance = balance - :amount, updated = to_timestamp(@time / 1e9) WHERE account = :from;
UPDATE accounts SET balance = balance + :amount, updated = to_timestamp(@time / 1e9) WHERE account = :to;
