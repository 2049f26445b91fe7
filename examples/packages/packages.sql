-- azoth: projection packages

-- azoth: migration 1 create packages
CREATE TABLE packages (
    package TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    version TEXT NOT NULL,
    since TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE installs (package TEXT PRIMARY KEY, first TEXT NOT NULL) WITHOUT ROWID;

-- azoth: on status
INSERT INTO packages VALUES (:package, :status, :version, :time)
    ON CONFLICT (package) DO UPDATE
    SET status = excluded.status, version = excluded.version, since = excluded.since;

-- azoth: on install
INSERT INTO installs VALUES (:package, :time) ON CONFLICT DO NOTHING;
