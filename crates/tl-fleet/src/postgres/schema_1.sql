-- `@` before a name stands for the schema that the fleet lives in.

CREATE TABLE @fleet_meta (
  name text PRIMARY KEY,
  value text NOT NULL
);

CREATE SEQUENCE @fleet_seq;

-- The hot table: unfinished steps alone. state: 0 scheduled, 1 pending, 2 claimed.
-- Room is left in each page, for a row is written several times in its short life; what is dead
-- is swept early.
CREATE TABLE @fleet_steps (
  seq bigint PRIMARY KEY DEFAULT nextval('@fleet_seq'),
  id uuid NOT NULL UNIQUE,
  kind text NOT NULL,
  state smallint NOT NULL CHECK (state IN (0, 1, 2)),
  priority integer NOT NULL,
  rank bigint NOT NULL,
  run_at bigint NOT NULL,
  attempt bigint NOT NULL DEFAULT 0,
  charged integer NOT NULL DEFAULT 0,
  lost integer NOT NULL DEFAULT 0,
  attempts_max integer NOT NULL,
  timeout_ms bigint,
  token uuid,
  claimed_by text,
  claimed_at bigint,
  lease_until bigint,
  cancel_asked boolean NOT NULL DEFAULT false,
  progress text,
  unique_key text,
  unique_until smallint,
  last_error text,
  created_at bigint NOT NULL,
  updated_at bigint NOT NULL,
  args text NOT NULL,
  metadata text NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.2);
CREATE INDEX fleet_steps_pending ON @fleet_steps (kind, rank, seq) WHERE state = 1;
CREATE INDEX fleet_steps_scheduled ON @fleet_steps (run_at) WHERE state = 0;
CREATE INDEX fleet_steps_claimed ON @fleet_steps (lease_until) WHERE state = 2;
CREATE INDEX fleet_steps_named ON @fleet_steps (unique_key) WHERE unique_key IS NOT NULL;

-- Where finished steps are moved to: 3 completed, 4 failed, 5 cancelled.
CREATE TABLE @fleet_finished (
  seq bigint PRIMARY KEY,
  id uuid NOT NULL UNIQUE,
  kind text NOT NULL,
  state smallint NOT NULL CHECK (state IN (3, 4, 5)),
  priority integer NOT NULL,
  run_at bigint NOT NULL,
  attempt bigint NOT NULL,
  charged integer NOT NULL,
  attempts_max integer NOT NULL,
  timeout_ms bigint,
  token uuid,
  claimed_by text,
  claimed_at bigint,
  cancel_asked boolean NOT NULL,
  progress text,
  unique_key text,
  unique_until smallint,
  result text,
  last_error text,
  created_at bigint NOT NULL,
  updated_at bigint NOT NULL,
  finished_at bigint NOT NULL,
  args text NOT NULL,
  metadata text NOT NULL
);
CREATE INDEX fleet_finished_age ON @fleet_finished (state, finished_at);
CREATE INDEX fleet_finished_named ON @fleet_finished (unique_key) WHERE unique_key IS NOT NULL;

-- Who holds a unique key, over both tables.
CREATE TABLE @fleet_unique (
  key text PRIMARY KEY,
  id uuid NOT NULL
);

CREATE TABLE @fleet_attempts (
  seq bigint NOT NULL,
  attempt bigint NOT NULL,
  pod text NOT NULL,
  claimed_at bigint NOT NULL,
  ended_at bigint NOT NULL,
  ended smallint NOT NULL,
  error text,
  PRIMARY KEY (seq, attempt)
);

CREATE TABLE @fleet_effects (
  seq bigint NOT NULL,
  key text NOT NULL,
  value text NOT NULL,
  noted_at bigint NOT NULL,
  PRIMARY KEY (seq, key)
);

CREATE SEQUENCE @fleet_dead_letters_number;
CREATE TABLE @fleet_dead_letters (
  number bigint PRIMARY KEY DEFAULT nextval('@fleet_dead_letters_number'),
  seq bigint NOT NULL,
  id uuid NOT NULL,
  kind text NOT NULL,
  attempt bigint NOT NULL,
  reason smallint NOT NULL,
  error text,
  pod text NOT NULL,
  died_at bigint NOT NULL,
  redriven_at bigint
);
CREATE INDEX fleet_dead_letters_step ON @fleet_dead_letters (seq);

CREATE TABLE @fleet_pods (
  pod text PRIMARY KEY,
  incarnation bigint NOT NULL,
  birth bigint NOT NULL,
  heartbeat bigint NOT NULL,
  lease_until bigint NOT NULL,
  state smallint NOT NULL,
  draining boolean NOT NULL,
  capacity bigint NOT NULL,
  running bigint NOT NULL,
  prefetched bigint NOT NULL,
  kinds text[] NOT NULL,
  meta text NOT NULL,
  drain_asked boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

-- One row; epoch 0 is nobody's.
CREATE TABLE @fleet_leader (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  pod text NOT NULL DEFAULT '',
  incarnation bigint NOT NULL DEFAULT 0,
  epoch bigint NOT NULL DEFAULT 0,
  lease_until bigint NOT NULL DEFAULT 0
);
INSERT INTO @fleet_leader (one) VALUES (true);

CREATE TABLE @fleet_lives (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  incarnation bigint NOT NULL DEFAULT 0
);
INSERT INTO @fleet_lives (one) VALUES (true);

-- Changes of how many finished steps there are, never updated, so that nobody waits for anybody;
-- recovery folds them together. Their sum is the total.
CREATE TABLE @fleet_totals (
  state smallint NOT NULL,
  steps bigint NOT NULL
);
