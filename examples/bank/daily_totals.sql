-- azoth: projection daily_totals

-- azoth: migration 1 create daily_totals
CREATE TABLE daily_totals (
    day TEXT PRIMARY KEY,
    transfers INTEGER NOT NULL,
    amount INTEGER NOT NULL
) WITHOUT ROWID;

-- azoth: on transferred
INSERT INTO daily_totals VALUES (date(@time / 1000000000, 'unixepoch'), 1, :amount)
    ON CONFLICT (day) DO UPDATE SET transfers = transfers + 1, amount = amount + excluded.amount;
