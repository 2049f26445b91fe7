-- azoth: projection amounts
-- azoth: load lib/amounts.so
-- azoth: on-error retry 2 1s..5s then custom
-- azoth: on-error custom for refunded, in
-- azoth: migration 1 create the table
CREATE TABLE amounts (account INTEGER PRIMARY KEY, p50 INTEGER NOT NULL, histogram BLOB NOT NULL);
-- azoth: on transferred, in in C
-- nothing but a comment
-- azoth: on refunded
DELETE FROM amounts WHERE account = :account;
