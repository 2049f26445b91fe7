-- azoth: projection accounts
-- azoth: on-error fail-fast
-- azoth: shard-by :account

-- azoth: migration 1 create accounts
CREATE TABLE accounts (account TEXT PRIMARY KEY, balance INTEGER NOT NULL) WITHOUT ROWID;
-- azoth: undo
DROP TABLE accounts;

-- azoth: on deposited, credited
INSERT INTO accounts VALUES (:account, :amount)
  ON CONFLICT (account) DO UPDATE SET balance = balance + excluded.balance; -- twice

/* another */
-- azoth: on withdrawn
UPDATE accounts SET balance = balance - :amount WHERE account = ':' || :account;
