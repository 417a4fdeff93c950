CREATE TABLE fleet_meta (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

-- state: 0 scheduled, 1 pending, 2 claimed, 3 completed, 4 failed, 5 cancelled.
-- run_at, claimed_at, created_at, updated_at, finished_at: calendar, Unix milliseconds.
-- lease_until: milliseconds since the machine started.
CREATE TABLE fleet_steps (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  state INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  rank INTEGER NOT NULL,
  run_at INTEGER NOT NULL,
  attempt INTEGER NOT NULL DEFAULT 0,
  charged INTEGER NOT NULL DEFAULT 0,
  lost INTEGER NOT NULL DEFAULT 0,
  attempts_max INTEGER NOT NULL,
  timeout_ms INTEGER,
  token BLOB,
  claimed_by TEXT,
  claimed_at INTEGER,
  lease_until INTEGER,
  cancel_asked INTEGER NOT NULL DEFAULT 0,
  progress TEXT,
  unique_key TEXT,
  unique_until INTEGER,
  unique_slot TEXT,
  result TEXT,
  last_error TEXT,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  finished_at INTEGER
);
CREATE INDEX fleet_steps_pending ON fleet_steps (kind, rank, priority) WHERE state = 1;
CREATE INDEX fleet_steps_scheduled ON fleet_steps (run_at) WHERE state = 0;
CREATE INDEX fleet_steps_claimed ON fleet_steps (lease_until) WHERE state = 2;
CREATE INDEX fleet_steps_finished ON fleet_steps (state, finished_at) WHERE state >= 3;
CREATE UNIQUE INDEX fleet_steps_unique ON fleet_steps (unique_slot) WHERE unique_slot IS NOT NULL;
CREATE INDEX fleet_steps_named ON fleet_steps (unique_key) WHERE unique_key IS NOT NULL;

CREATE TABLE fleet_payloads (
  seq INTEGER PRIMARY KEY,
  args TEXT NOT NULL,
  metadata TEXT NOT NULL
);

CREATE TABLE fleet_attempts (
  seq INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  pod TEXT NOT NULL,
  claimed_at INTEGER NOT NULL,
  ended_at INTEGER NOT NULL,
  ended INTEGER NOT NULL,
  error TEXT,
  PRIMARY KEY (seq, attempt)
) WITHOUT ROWID;

CREATE TABLE fleet_effects (
  seq INTEGER NOT NULL,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  noted_at INTEGER NOT NULL,
  PRIMARY KEY (seq, key)
) WITHOUT ROWID;

CREATE TABLE fleet_dead_letters (
  number INTEGER PRIMARY KEY,
  seq INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  reason INTEGER NOT NULL,
  error TEXT,
  pod TEXT NOT NULL,
  died_at INTEGER NOT NULL,
  redriven_at INTEGER
);
CREATE INDEX fleet_dead_letters_step ON fleet_dead_letters (seq);

CREATE TABLE fleet_pods (
  pod TEXT PRIMARY KEY,
  incarnation INTEGER NOT NULL,
  birth INTEGER NOT NULL,
  birth_wall INTEGER NOT NULL,
  heartbeat_wall INTEGER NOT NULL,
  lease_until INTEGER NOT NULL,
  state INTEGER NOT NULL,
  draining INTEGER NOT NULL,
  capacity INTEGER NOT NULL,
  running INTEGER NOT NULL,
  prefetched INTEGER NOT NULL,
  kinds TEXT NOT NULL,
  meta TEXT NOT NULL,
  drain_asked INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE fleet_leader (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  pod TEXT NOT NULL,
  incarnation INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  lease_until INTEGER NOT NULL
);

CREATE TABLE fleet_totals (
  state INTEGER PRIMARY KEY,
  steps INTEGER NOT NULL
);
INSERT INTO fleet_totals (state, steps) VALUES (3, 0), (4, 0), (5, 0);

-- Submitting from any program inside a transaction of its own:
--   INSERT INTO fleet_submit (kind, args) VALUES ('mail', '{"to":"ann"}');
-- Only what SQLite 3.38 understands, for the program may bring its own. A step whose id or
-- unique key is held already is left out without an error, as every submission is.
CREATE VIEW fleet_submit AS
  SELECT id, kind, NULL AS args, NULL AS metadata, priority, attempts_max - 1 AS max_retries,
         NULL AS delay_ms, timeout_ms, unique_key, unique_until
  FROM fleet_steps WHERE 0;

CREATE TRIGGER fleet_submit_insert INSTEAD OF INSERT ON fleet_submit
BEGIN
  SELECT RAISE(ABORT, 'id must be a UUID in its usual form, in lower case')
    WHERE NEW.id IS NOT NULL
      AND (length(NEW.id) <> 36
           OR NEW.id NOT GLOB '????????-????-????-????-????????????'
           OR replace(NEW.id, '-', '') GLOB '*[^0-9a-f]*'
           OR length(replace(NEW.id, '-', '')) <> 32);
  SELECT RAISE(ABORT, 'kind must be 1 to 128 letters, digits, _ or -')
    WHERE NEW.kind IS NULL OR typeof(NEW.kind) <> 'text' OR length(NEW.kind) NOT BETWEEN 1 AND 128
       OR NEW.kind GLOB '*[^A-Za-z0-9_-]*';
  SELECT RAISE(ABORT, 'args must be a JSON object')
    WHERE NEW.args IS NOT NULL
      AND (typeof(NEW.args) <> 'text' OR NOT json_valid(NEW.args)
           OR substr(trim(NEW.args, char(9, 10, 13, 32)), 1, 1) <> '{');
  SELECT RAISE(ABORT, 'metadata must be a JSON object')
    WHERE NEW.metadata IS NOT NULL
      AND (typeof(NEW.metadata) <> 'text' OR NOT json_valid(NEW.metadata)
           OR substr(trim(NEW.metadata, char(9, 10, 13, 32)), 1, 1) <> '{');
  SELECT RAISE(ABORT, 'kind, args and metadata must have at most 1048576 bytes together')
    WHERE 31 + length(CAST(NEW.kind AS BLOB))
          + coalesce(length(CAST(trim(NEW.args, char(9, 10, 13, 32)) AS BLOB)), 2)
          + coalesce(length(CAST(trim(NEW.metadata, char(9, 10, 13, 32)) AS BLOB)), 2) > 1048576;
  SELECT RAISE(ABORT, 'priority must be a whole number from -1000000 to 1000000')
    WHERE NEW.priority IS NOT NULL
      AND (typeof(NEW.priority) <> 'integer' OR NEW.priority NOT BETWEEN -1000000 AND 1000000);
  SELECT RAISE(ABORT, 'max_retries must be a whole number from 0 to 10')
    WHERE NEW.max_retries IS NOT NULL
      AND (typeof(NEW.max_retries) <> 'integer' OR NEW.max_retries NOT BETWEEN 0 AND 10);
  SELECT RAISE(ABORT, 'delay_ms must be a whole number from 0 to 31622400000')
    WHERE NEW.delay_ms IS NOT NULL
      AND (typeof(NEW.delay_ms) <> 'integer' OR NEW.delay_ms NOT BETWEEN 0 AND 31622400000);
  SELECT RAISE(ABORT, 'timeout_ms must be a whole number from 1 to 604800000')
    WHERE NEW.timeout_ms IS NOT NULL
      AND (typeof(NEW.timeout_ms) <> 'integer' OR NEW.timeout_ms NOT BETWEEN 1 AND 604800000);
  SELECT RAISE(ABORT, 'unique_key must be 1 to 255 bytes of text')
    WHERE NEW.unique_key IS NOT NULL
      AND (typeof(NEW.unique_key) <> 'text'
           OR length(CAST(NEW.unique_key AS BLOB)) NOT BETWEEN 1 AND 255
           OR instr(CAST(NEW.unique_key AS BLOB), x'00') > 0);
  SELECT RAISE(ABORT, 'unique_until must be 0 (finished) or 1 (forgotten)')
    WHERE NEW.unique_until IS NOT NULL AND NEW.unique_until NOT IN (0, 1);

  -- The calendar's time is worked out once, in the subquery; the id is a UUID of version 7 but
  -- for a finer order within the millisecond.
  INSERT OR IGNORE INTO fleet_steps (id, kind, state, priority, rank, run_at, attempts_max,
      timeout_ms, unique_key, unique_until, unique_slot, created_at, updated_at)
    SELECT
      coalesce(NEW.id, substr(hex_ms, 1, 8) || '-' || substr(hex_ms, 9, 4) || '-7' || substr(r, 1, 3)
        || '-' || substr('89ab', 1 + abs(random() % 4), 1) || substr(r, 4, 3) || '-'
        || substr(r, 7, 12)),
      NEW.kind,
      CASE WHEN coalesce(NEW.delay_ms, 0) > 0 THEN 0 ELSE 1 END,
      coalesce(NEW.priority, 0),
      ms + coalesce(NEW.delay_ms, 0) - coalesce(NEW.priority, 0) * 60000,
      ms + coalesce(NEW.delay_ms, 0),
      coalesce(NEW.max_retries, 3) + 1,
      NEW.timeout_ms,
      NEW.unique_key,
      CASE WHEN NEW.unique_key IS NOT NULL THEN coalesce(NEW.unique_until, 1) END,
      NEW.unique_key,
      ms, ms
    FROM (SELECT ms, printf('%012x', ms) AS hex_ms, lower(hex(randomblob(9))) AS r
          FROM (SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) AS ms));
  INSERT INTO fleet_payloads (seq, args, metadata)
    SELECT seq, coalesce(trim(NEW.args, char(9, 10, 13, 32)), '{}'),
           coalesce(trim(NEW.metadata, char(9, 10, 13, 32)), '{}')
    FROM fleet_steps
    WHERE changes() > 0 AND seq = last_insert_rowid();
END;
