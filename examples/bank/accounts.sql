-- azoth: projection accounts
-- azoth: on-error fail-fast

-- azoth: migration 1 create accounts
CREATE TABLE accounts (
    account INTEGER PRIMARY KEY,
    balance INTEGER NOT NULL,
    updated INTEGER NOT NULL
);

-- azoth: on opened
INSERT INTO accounts VALUES (:account, :amount, @time);

-- azoth: on transferred
UPDATE accounts SET balance = balance - :amount, updated = @time WHERE account = :from;
UPDATE accounts SET balance = balance + :amount, updated = @time WHERE account = :to;
