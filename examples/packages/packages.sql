-- azoth: projection packages

-- azoth: migration 1 create packages
CREATE TABLE packages (
    package TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    version TEXT NOT NULL,
    since TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE installs (package TEXT PRIMARY KEY, first TEXT NOT NULL) WITHOUT ROWID;
-- How many events of each type a package has had.
CREATE TABLE history (
    package TEXT NOT NULL,
    type TEXT NOT NULL,
    events INTEGER NOT NULL,
    PRIMARY KEY (package, type)
) WITHOUT ROWID;

-- azoth: on status
INSERT INTO packages VALUES (:package, :status, :version, :time)
    ON CONFLICT (package) DO UPDATE
    SET status = excluded.status, version = excluded.version, since = excluded.since;
INSERT INTO history VALUES (:package, @type, 1)
    ON CONFLICT (package, type) DO UPDATE SET events = events + 1;

-- azoth: on install
INSERT INTO installs VALUES (:package, :time) ON CONFLICT DO NOTHING;
INSERT INTO history VALUES (:package, @type, 1)
    ON CONFLICT (package, type) DO UPDATE SET events = events + 1;

-- azoth: on upgrade, remove, purge, configure, trigproc
INSERT INTO history VALUES (:package, @type, 1)
    ON CONFLICT (package, type) DO UPDATE SET events = events + 1;
