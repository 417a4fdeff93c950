-- The tables and functions as version 1 left them, to be brought up from. `@` before a name stands
-- for the schema.

CREATE TABLE @fleet_meta (
  name text PRIMARY KEY,
  value text NOT NULL
);

-- The store's clock, milliseconds since 1970. Every deadline is made and compared by it, inside
-- the statement; no pod's clock is ever looked at.
CREATE FUNCTION @fleet_clock() RETURNS bigint LANGUAGE sql VOLATILE
  AS $$ SELECT floor(date_part('epoch', clock_timestamp()) * 1000)::bigint $$;

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

CREATE FUNCTION @fleet_fold_totals() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF (SELECT count(*) > 256 FROM (SELECT 1 FROM @fleet_totals LIMIT 257) AS few) THEN
    WITH old AS (
      DELETE FROM @fleet_totals WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM @fleet_totals LIMIT 100000 FOR UPDATE SKIP LOCKED))
      RETURNING state, steps)
    INSERT INTO @fleet_totals (state, steps)
      SELECT state, sum(steps) FROM old GROUP BY state;
  END IF;
END $$;

-- The one way in. Arrays of one length; gives the time and how many are new, then a row for each
-- item that is not, with the step that stands in its place. One that is neither was forgotten in
-- that very moment: the caller comes again.
CREATE FUNCTION @fleet_submit_many(
  ids uuid[], kinds text[], all_args text[], all_metadata text[], priorities integer[],
  all_attempts_max integer[], delays_ms bigint[], ats_ms bigint[], timeouts_ms bigint[],
  keys text[], untils smallint[]
) RETURNS TABLE (at bigint, item bigint, id uuid, state smallint, differs boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  clock_ms bigint := @fleet_clock();
  fresh uuid[];
  born uuid[] := '{}';
  twice uuid[];
  one record;
BEGIN
  -- Those without a unique key, all at once.
  WITH put AS (
    INSERT INTO @fleet_steps (id, kind, state, priority, rank, run_at, attempts_max, timeout_ms,
        created_at, updated_at, args, metadata)
      SELECT i.id, i.kind, CASE WHEN due.at > clock_ms THEN 0 ELSE 1 END, i.priority,
             due.at - i.priority::bigint * 60000, due.at, i.attempts_max, i.timeout_ms,
             clock_ms, clock_ms, i.args, i.metadata
      FROM unnest(ids, kinds, all_args, all_metadata, priorities, all_attempts_max, delays_ms,
                  ats_ms, timeouts_ms, keys)
             WITH ORDINALITY AS i (id, kind, args, metadata, priority, attempts_max, delay_ms,
                                   at_ms, timeout_ms, key, n),
           LATERAL (SELECT greatest(clock_ms, clock_ms + i.delay_ms, i.at_ms) AS at) AS due
      WHERE i.key IS NULL
        AND NOT EXISTS (SELECT FROM @fleet_finished AS f WHERE f.id = i.id)
      ORDER BY i.n
    ON CONFLICT DO NOTHING
    RETURNING id)
  SELECT coalesce(array_agg(put.id), '{}') INTO fresh FROM put;

  -- One may have been finished while its row was waited for; this statement sees it.
  SELECT array_agg(f.id) INTO twice FROM @fleet_finished AS f WHERE f.id = ANY (fresh);
  IF twice IS NOT NULL THEN
    DELETE FROM @fleet_steps AS s WHERE s.id = ANY (twice);
    fresh := ARRAY(SELECT u FROM unnest(fresh) AS u WHERE u <> ALL (twice));
  END IF;

  -- Those with a unique key, one by one: the key comes first, and goes again when the id is
  -- found to be taken.
  FOR one IN
    SELECT i.*, greatest(clock_ms, clock_ms + i.delay_ms, i.at_ms) AS due
    FROM unnest(ids, kinds, all_args, all_metadata, priorities, all_attempts_max, delays_ms,
                ats_ms, timeouts_ms, keys, untils)
           WITH ORDINALITY AS i (id, kind, args, metadata, priority, attempts_max, delay_ms,
                                 at_ms, timeout_ms, key, until, n)
    WHERE i.key IS NOT NULL ORDER BY i.n
  LOOP
    CONTINUE WHEN EXISTS (SELECT FROM @fleet_steps AS s WHERE s.id = one.id)
               OR EXISTS (SELECT FROM @fleet_finished AS f WHERE f.id = one.id);
    INSERT INTO @fleet_unique (key, id) VALUES (one.key, one.id) ON CONFLICT DO NOTHING;
    CONTINUE WHEN NOT FOUND;
    INSERT INTO @fleet_steps (id, kind, state, priority, rank, run_at, attempts_max, timeout_ms,
        unique_key, unique_until, created_at, updated_at, args, metadata)
      VALUES (one.id, one.kind, CASE WHEN one.due > clock_ms THEN 0 ELSE 1 END, one.priority,
              one.due - one.priority::bigint * 60000, one.due, one.attempts_max, one.timeout_ms,
              one.key, one.until, clock_ms, clock_ms, one.args, one.metadata)
      ON CONFLICT DO NOTHING;
    IF FOUND AND NOT EXISTS (SELECT FROM @fleet_finished AS f WHERE f.id = one.id) THEN
      born := born || one.id;
    ELSE
      IF FOUND THEN
        DELETE FROM @fleet_steps AS s WHERE s.id = one.id AND s.unique_key = one.key
          AND s.attempt = 0;
      END IF;
      DELETE FROM @fleet_unique AS u WHERE u.key = one.key AND u.id = one.id;
    END IF;
  END LOOP;

  RETURN QUERY SELECT clock_ms, (cardinality(fresh) + cardinality(born))::bigint, NULL::uuid,
    NULL::smallint, NULL::boolean;
  IF cardinality(fresh) + cardinality(born) < cardinality(ids) THEN
    RETURN QUERY
      SELECT clock_ms, i.n, stands.id, stands.state,
             stands.kind <> i.kind OR stands.args <> i.args
      FROM (SELECT j.*, row_number() OVER (PARTITION BY j.id ORDER BY j.n) AS nth
            FROM unnest(ids, kinds, all_args, keys)
                   WITH ORDINALITY AS j (id, kind, args, key, n)) AS i,
           LATERAL (
             SELECT found.* FROM (
               SELECT 1 AS pick, s.id, s.state, s.kind, s.args FROM @fleet_steps AS s
                 WHERE s.id = i.id
               UNION ALL
               SELECT 1, f.id, f.state, f.kind, f.args FROM @fleet_finished AS f
                 WHERE f.id = i.id
               UNION ALL
               SELECT 2, s.id, s.state, s.kind, s.args
                 FROM @fleet_unique AS u JOIN @fleet_steps AS s ON s.id = u.id
                 WHERE u.key = i.key
               UNION ALL
               SELECT 2, f.id, f.state, f.kind, f.args
                 FROM @fleet_unique AS u JOIN @fleet_finished AS f ON f.id = u.id
                 WHERE u.key = i.key
             ) AS found ORDER BY found.pick LIMIT 1
           ) AS stands
      WHERE i.nth > 1 OR NOT (i.id = ANY (fresh) OR i.id = ANY (born));
  END IF;
END $$;

-- Steps come to who asks. Rows that others are just taking are passed over. Rows are updated by
-- their place, which is safe while they are locked, so that no plan can choose badly.
CREATE FUNCTION @fleet_claim(
  claimant text, life bigint, kinds text[], steps_max integer, lease_ms bigint,
  promote_max integer, bytes_before_last bigint
) RETURNS TABLE (
  at bigint, id uuid, token uuid, attempt bigint, charged integer, attempts_max integer,
  kind text, priority integer, timeout_ms bigint, lease_until bigint, args text, metadata text,
  rank bigint, seq bigint
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  clock_ms bigint := @fleet_clock();
BEGIN
  IF life IS NOT NULL AND NOT EXISTS (
    SELECT FROM @fleet_pods AS p
    WHERE p.pod = claimant AND p.incarnation = life AND p.state = 0 AND p.lease_until > clock_ms)
  THEN
    RAISE EXCEPTION 'this life of the pod is over' USING ERRCODE = 'TLF01';
  END IF;
  IF EXISTS (SELECT FROM @fleet_steps AS s WHERE s.state = 0 AND s.run_at <= clock_ms) THEN
    UPDATE @fleet_steps AS s SET state = 1
    WHERE s.ctid = ANY (ARRAY(
      SELECT d.ctid FROM @fleet_steps AS d WHERE d.state = 0 AND d.run_at <= clock_ms
      ORDER BY d.run_at LIMIT promote_max FOR UPDATE SKIP LOCKED));
  END IF;
  RETURN QUERY SELECT clock_ms, NULL::uuid, NULL::uuid, NULL::bigint, NULL::integer,
    NULL::integer, NULL::text, NULL::integer, NULL::bigint, NULL::bigint, NULL::text,
    NULL::text, NULL::bigint, NULL::bigint;
  RETURN QUERY
    WITH picked AS MATERIALIZED (
      SELECT one.place, sum(one.bytes) OVER (ORDER BY one.rank, one.seq) - one.bytes AS before
      FROM (SELECT DISTINCT k FROM unnest(kinds) AS k) AS wanted,
           LATERAL (
             SELECT s.ctid AS place, s.rank, s.seq,
                    octet_length(s.args) + octet_length(s.metadata) AS bytes
             FROM @fleet_steps AS s
             WHERE s.state = 1 AND s.kind = wanted.k
             ORDER BY s.rank, s.seq LIMIT steps_max FOR UPDATE SKIP LOCKED
           ) AS one
      ORDER BY one.rank, one.seq LIMIT steps_max)
    UPDATE @fleet_steps AS s
    SET state = 2, attempt = s.attempt + 1, token = gen_random_uuid(), claimed_by = claimant,
        claimed_at = clock_ms, lease_until = clock_ms + lease_ms, updated_at = clock_ms
    WHERE s.ctid = ANY (ARRAY(SELECT place FROM picked WHERE before <= bytes_before_last))
      AND s.state = 1
    RETURNING clock_ms, s.id, s.token, s.attempt, s.charged, s.attempts_max, s.kind, s.priority,
              s.timeout_ms, s.lease_until, s.args, s.metadata, s.rank, s.seq;
END $$;

-- Claims end: outcome 1 completed, 2 failed, 3 fatal, 4 cancelled, 5 released. Gives the state
-- that each item led to; an item that is not given back had lost its claim.
CREATE FUNCTION @fleet_finish(
  ids uuid[], tokens uuid[], outcomes smallint[], texts text[], waits_ms bigint[]
) RETURNS TABLE (at bigint, item bigint, state smallint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  clock_ms bigint := @fleet_clock();
  ended bigint := 0;
BEGIN
  RETURN QUERY SELECT clock_ms, NULL::bigint, NULL::smallint;
  RETURN QUERY
    WITH held AS MATERIALIZED (
      SELECT i.n, i.outcome, i.said, i.wait_ms, s.seq, s.attempt, s.claimed_by,
             s.claimed_at, s.charged + CASE WHEN i.outcome IN (2, 3) THEN 1 ELSE 0 END AS charged,
             s.id, s.kind,
             CASE WHEN i.outcome = 1 THEN 3
                  WHEN i.outcome = 4 OR s.cancel_asked THEN 5
                  WHEN i.outcome = 3 OR (i.outcome = 2 AND s.charged + 1 >= s.attempts_max) THEN 4
                  WHEN i.outcome = 2 AND i.wait_ms > 0 THEN 0
                  ELSE 1 END AS next
      FROM unnest(ids, tokens, outcomes, texts, waits_ms)
             WITH ORDINALITY AS i (id, token, outcome, said, wait_ms, n)
      JOIN @fleet_steps AS s ON s.id = i.id AND s.token = i.token AND s.state = 2
      ORDER BY s.seq, i.n FOR UPDATE OF s),
    -- Of one claim that is reported twice in a batch the first counts.
    first AS MATERIALIZED (SELECT DISTINCT ON (held.seq) held.* FROM held ORDER BY held.seq, held.n),
    gone AS (
      DELETE FROM @fleet_steps AS s
      -- Not by place: a row that another transaction updates meanwhile has a new place, which the
      -- snapshot of this statement does not see.
      WHERE s.seq = ANY (ARRAY(SELECT seq FROM first WHERE next >= 3))
      RETURNING s.*),
    kept AS (
      INSERT INTO @fleet_finished (seq, id, kind, state, priority, run_at, attempt, charged,
          attempts_max, timeout_ms, token, claimed_by, claimed_at, cancel_asked, progress,
          unique_key, unique_until, result, last_error, created_at, updated_at, finished_at, args,
          metadata)
        SELECT g.seq, g.id, g.kind, f.next, g.priority, g.run_at, g.attempt, f.charged,
               g.attempts_max, g.timeout_ms, g.token, g.claimed_by, g.claimed_at, g.cancel_asked,
               g.progress, g.unique_key, g.unique_until,
               CASE WHEN f.outcome = 1 THEN f.said END,
               CASE WHEN f.outcome IN (2, 3) THEN f.said ELSE g.last_error END,
               g.created_at, clock_ms, clock_ms, g.args, g.metadata
        FROM gone AS g JOIN first AS f ON f.seq = g.seq),
    freed AS (
      DELETE FROM @fleet_unique AS u USING gone AS g
      WHERE g.unique_until = 0 AND u.key = g.unique_key AND u.id = g.id),
    back AS (
      UPDATE @fleet_steps AS s
      SET state = f.next, charged = f.charged, updated_at = clock_ms, token = NULL,
          lease_until = NULL, progress = NULL,
          last_error = CASE WHEN f.outcome = 2 THEN f.said ELSE s.last_error END,
          run_at = CASE WHEN f.outcome = 2 THEN clock_ms + f.wait_ms ELSE s.run_at END,
          rank = CASE WHEN f.outcome = 2
                      THEN clock_ms + f.wait_ms - s.priority::bigint * 60000 ELSE s.rank END
      FROM first AS f WHERE s.seq = f.seq AND f.next < 3),
    traced AS (
      INSERT INTO @fleet_attempts (seq, attempt, pod, claimed_at, ended_at, ended, error)
        SELECT f.seq, f.attempt, f.claimed_by, f.claimed_at, clock_ms,
               CASE f.outcome WHEN 4 THEN 5 WHEN 5 THEN 4 ELSE 2 END,
               CASE WHEN f.outcome IN (2, 3) THEN f.said END
        FROM first AS f WHERE f.outcome <> 1),
    buried AS (
      INSERT INTO @fleet_dead_letters (seq, id, kind, attempt, reason, error, pod, died_at)
        SELECT f.seq, f.id, f.kind, f.attempt, CASE WHEN f.outcome = 3 THEN 2 ELSE 0 END, f.said,
               f.claimed_by, clock_ms
        FROM first AS f WHERE f.next = 4 ORDER BY f.n),
    summed AS (
      INSERT INTO @fleet_totals (state, steps)
        SELECT f.next, count(*) FROM first AS f WHERE f.next >= 3 GROUP BY f.next)
    SELECT clock_ms, f.n, f.next::smallint FROM first AS f;
  GET DIAGNOSTICS ended = ROW_COUNT;
  IF ended < cardinality(ids) THEN
    -- A report that came again is answered as the first time.
    RETURN QUERY
      SELECT clock_ms, i.n, f.state
      FROM unnest(ids, tokens) WITH ORDINALITY AS i (id, token, n)
      JOIN @fleet_finished AS f ON f.id = i.id AND f.token = i.token;
  END IF;
END $$;

-- Steps whose lease ran out are taken from their holders, in one statement.
CREATE FUNCTION @fleet_recover(steps_max integer, poison_after integer, waits_ms bigint[])
RETURNS TABLE (
  at bigint, id uuid, claimed_by text, attempt bigint, charged integer, attempts_max integer,
  claimed_at bigint, state smallint
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  clock_ms bigint := @fleet_clock();
BEGIN
  PERFORM @fleet_fold_totals();
  RETURN QUERY SELECT clock_ms, NULL::uuid, NULL::text, NULL::bigint, NULL::integer,
    NULL::integer, NULL::bigint, NULL::smallint;
  RETURN QUERY
    WITH late AS MATERIALIZED (
      SELECT s.seq, s.id, s.kind, s.claimed_by, s.claimed_at, s.attempt,
             s.attempts_max, s.charged + 1 AS charged, s.lost + 1 AS lost,
             waits_ms[least(s.charged + 1, cardinality(waits_ms))] AS wait_ms,
             'the lease ran out while ' || s.claimed_by || ' held it' AS said,
             CASE WHEN s.cancel_asked THEN 5
                  WHEN s.charged + 1 >= s.attempts_max OR s.lost + 1 >= poison_after THEN 4
                  WHEN waits_ms[least(s.charged + 1, cardinality(waits_ms))] > 0 THEN 0
                  ELSE 1 END AS next
      FROM @fleet_steps AS s WHERE s.state = 2 AND s.lease_until <= clock_ms
      ORDER BY s.lease_until LIMIT steps_max FOR UPDATE SKIP LOCKED),
    gone AS (
      DELETE FROM @fleet_steps AS s
      -- Not by place, as when claims end.
      WHERE s.seq = ANY (ARRAY(SELECT seq FROM late WHERE next >= 3))
      RETURNING s.*),
    kept AS (
      INSERT INTO @fleet_finished (seq, id, kind, state, priority, run_at, attempt, charged,
          attempts_max, timeout_ms, claimed_by, claimed_at, cancel_asked, unique_key,
          unique_until, last_error, created_at, updated_at, finished_at, args, metadata)
        SELECT g.seq, g.id, g.kind, l.next, g.priority, g.run_at, g.attempt, l.charged,
               g.attempts_max, g.timeout_ms, g.claimed_by, g.claimed_at, g.cancel_asked,
               g.unique_key, g.unique_until, l.said, g.created_at, clock_ms, clock_ms, g.args,
               g.metadata
        FROM gone AS g JOIN late AS l ON l.seq = g.seq),
    freed AS (
      DELETE FROM @fleet_unique AS u USING gone AS g
      WHERE g.unique_until = 0 AND u.key = g.unique_key AND u.id = g.id),
    back AS (
      UPDATE @fleet_steps AS s
      SET state = l.next, charged = l.charged, lost = l.lost, last_error = l.said,
          run_at = clock_ms + l.wait_ms,
          rank = clock_ms + l.wait_ms - s.priority::bigint * 60000,
          token = NULL, lease_until = NULL, progress = NULL, updated_at = clock_ms
      FROM late AS l WHERE s.seq = l.seq AND l.next < 3),
    traced AS (
      INSERT INTO @fleet_attempts (seq, attempt, pod, claimed_at, ended_at, ended)
        SELECT l.seq, l.attempt, l.claimed_by, l.claimed_at, clock_ms, 3 FROM late AS l
        -- One row that is not as it should be must not stop the recovery of all others.
        ON CONFLICT DO NOTHING),
    buried AS (
      INSERT INTO @fleet_dead_letters (seq, id, kind, attempt, reason, error, pod, died_at)
        SELECT l.seq, l.id, l.kind, l.attempt,
               CASE WHEN l.charged >= l.attempts_max THEN 0 ELSE 1 END, l.said, l.claimed_by,
               clock_ms
        FROM late AS l WHERE l.next = 4),
    summed AS (
      INSERT INTO @fleet_totals (state, steps)
        SELECT l.next, count(*) FROM late AS l WHERE l.next >= 3 GROUP BY l.next)
    SELECT clock_ms, l.id, l.claimed_by, l.attempt, l.charged, l.attempts_max, l.claimed_at,
           l.next::smallint
    FROM late AS l;
END $$;

-- What a leader writes: nothing, unless its epoch leads now and goes on leading until this is
-- committed.
CREATE FUNCTION @fleet_leads(its_epoch bigint, clock_ms bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM @fleet_leader AS l WHERE l.epoch = its_epoch AND l.lease_until > clock_ms
    FOR SHARE;
  RETURN FOUND;
END $$;

CREATE FUNCTION @fleet_reap(its_epoch bigint, pods_max integer)
RETURNS TABLE (at bigint, leads boolean, pod text, incarnation bigint, lease_until bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  clock_ms bigint := @fleet_clock();
  its_turn boolean := @fleet_leads(its_epoch, clock_ms);
BEGIN
  RETURN QUERY SELECT clock_ms, its_turn, NULL::text, NULL::bigint, NULL::bigint;
  IF its_turn THEN
    RETURN QUERY
      UPDATE @fleet_pods AS p SET state = 1
      WHERE p.pod IN (SELECT d.pod FROM @fleet_pods AS d
                      WHERE d.state = 0 AND d.lease_until <= clock_ms
                      LIMIT pods_max FOR UPDATE SKIP LOCKED)
      RETURNING clock_ms, its_turn, p.pod, p.incarnation, p.lease_until;
  END IF;
END $$;

CREATE FUNCTION @fleet_retain(
  its_epoch bigint, finished_ms bigint, dead_ms bigint, pods_ms bigint, steps_max integer
) RETURNS TABLE (at bigint, leads boolean, steps bigint, pods bigint, more boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  clock_ms bigint := @fleet_clock();
  its_turn boolean := @fleet_leads(its_epoch, clock_ms);
  room integer := steps_max;
  aged record;
  forgotten bigint;
BEGIN
  IF NOT its_turn THEN
    RETURN QUERY SELECT clock_ms, false, 0::bigint, 0::bigint, false;
    RETURN;
  END IF;
  PERFORM @fleet_fold_totals();
  FOR aged IN
    SELECT * FROM (VALUES (3::smallint, finished_ms), (5::smallint, finished_ms),
                          (4::smallint, dead_ms)) AS v (state, keep_ms)
  LOOP
    WITH gone AS (
      DELETE FROM @fleet_finished AS f
      WHERE f.ctid = ANY (ARRAY(
        SELECT o.ctid FROM @fleet_finished AS o
        WHERE o.state = aged.state AND o.finished_at <= clock_ms - aged.keep_ms
        ORDER BY o.finished_at LIMIT room FOR UPDATE SKIP LOCKED))
      RETURNING f.seq, f.id, f.unique_key),
    letters AS (DELETE FROM @fleet_dead_letters AS d USING gone AS g WHERE d.seq = g.seq),
    effects AS (DELETE FROM @fleet_effects AS e USING gone AS g WHERE e.seq = g.seq),
    attempts AS (DELETE FROM @fleet_attempts AS a USING gone AS g WHERE a.seq = g.seq),
    freed AS (DELETE FROM @fleet_unique AS u USING gone AS g
              WHERE u.key = g.unique_key AND u.id = g.id)
    SELECT count(*) INTO forgotten FROM gone;
    IF forgotten > 0 THEN
      INSERT INTO @fleet_totals (state, steps) VALUES (aged.state, -forgotten);
    END IF;
    room := room - forgotten;
  END LOOP;
  DELETE FROM @fleet_pods AS p WHERE p.state = 1 AND p.heartbeat <= clock_ms - pods_ms;
  GET DIAGNOSTICS forgotten = ROW_COUNT;
  RETURN QUERY SELECT clock_ms, true, (steps_max - room)::bigint, forgotten, room = 0;
END $$;

-- Leadership by compare and set. Epochs only grow, and an epoch belongs to one holder.
CREATE FUNCTION @fleet_lead(its_pod text, life bigint, lease_ms bigint)
RETURNS TABLE (at bigint, led boolean, pod text, incarnation bigint, epoch bigint,
               lease_until bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  clock_ms bigint := @fleet_clock();
BEGIN
  IF NOT EXISTS (
    SELECT FROM @fleet_pods AS p
    WHERE p.pod = its_pod AND p.incarnation = life AND p.state = 0 AND p.lease_until > clock_ms)
  THEN
    RAISE EXCEPTION 'this life of the pod is over' USING ERRCODE = 'TLF01';
  END IF;
  RETURN QUERY
    UPDATE @fleet_leader AS l
    SET pod = its_pod, incarnation = life, lease_until = clock_ms + lease_ms,
        epoch = CASE WHEN l.lease_until > clock_ms THEN l.epoch ELSE l.epoch + 1 END
    WHERE l.lease_until <= clock_ms OR (l.incarnation = life AND l.epoch > 0)
    RETURNING clock_ms, true, l.pod, l.incarnation, l.epoch, l.lease_until;
  IF NOT FOUND THEN
    RETURN QUERY SELECT clock_ms, false, l.pod, l.incarnation, l.epoch, l.lease_until
      FROM @fleet_leader AS l;
  END IF;
END $$;

-- Effects are noted under claims that are still held: 1 now, 2 before, 3 fenced.
CREATE FUNCTION @fleet_note_effects(ids uuid[], tokens uuid[], keys text[], vals text[])
RETURNS TABLE (at bigint, item bigint, noted smallint, value text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  clock_ms bigint := @fleet_clock();
  held bigint;
  earlier text;
BEGIN
  RETURN QUERY SELECT clock_ms, NULL::bigint, NULL::smallint, NULL::text;
  FOR n IN 1 .. cardinality(ids) LOOP
    SELECT s.seq INTO held FROM @fleet_steps AS s
      WHERE s.id = ids[n] AND s.token = tokens[n] AND s.state = 2 FOR UPDATE;
    IF NOT FOUND THEN
      RETURN QUERY SELECT clock_ms, n::bigint, 3::smallint, NULL::text;
      CONTINUE;
    END IF;
    INSERT INTO @fleet_effects (seq, key, value, noted_at) VALUES (held, keys[n], vals[n], clock_ms)
      ON CONFLICT DO NOTHING;
    IF FOUND THEN
      RETURN QUERY SELECT clock_ms, n::bigint, 1::smallint, NULL::text;
    ELSE
      SELECT e.value INTO earlier FROM @fleet_effects AS e WHERE e.seq = held AND e.key = keys[n];
      RETURN QUERY SELECT clock_ms, n::bigint, 2::smallint, earlier;
    END IF;
  END LOOP;
END $$;

-- People call off: 1 now, 2 asked, 3 finished before in that state, 4 not found.
CREATE FUNCTION @fleet_cancel(ids uuid[])
RETURNS TABLE (at bigint, item bigint, what smallint, state smallint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  clock_ms bigint := @fleet_clock();
  stands record;
  before smallint;
BEGIN
  RETURN QUERY SELECT clock_ms, NULL::bigint, NULL::smallint, NULL::smallint;
  FOR n IN 1 .. cardinality(ids) LOOP
    SELECT s.* INTO stands FROM @fleet_steps AS s WHERE s.id = ids[n] FOR UPDATE;
    IF FOUND AND stands.state = 2 THEN
      UPDATE @fleet_steps AS s SET cancel_asked = true WHERE s.seq = stands.seq;
      RETURN QUERY SELECT clock_ms, n::bigint, 2::smallint, NULL::smallint;
    ELSIF FOUND THEN
      DELETE FROM @fleet_steps AS s WHERE s.seq = stands.seq;
      INSERT INTO @fleet_finished (seq, id, kind, state, priority, run_at, attempt, charged,
          attempts_max, timeout_ms, claimed_by, claimed_at, cancel_asked, unique_key,
          unique_until, last_error, created_at, updated_at, finished_at, args, metadata)
        VALUES (stands.seq, stands.id, stands.kind, 5, stands.priority, stands.run_at,
          stands.attempt, stands.charged, stands.attempts_max, stands.timeout_ms,
          stands.claimed_by, stands.claimed_at, stands.cancel_asked, stands.unique_key,
          stands.unique_until, stands.last_error, stands.created_at, clock_ms, clock_ms,
          stands.args, stands.metadata);
      DELETE FROM @fleet_unique AS u
        WHERE stands.unique_until = 0 AND u.key = stands.unique_key AND u.id = stands.id;
      INSERT INTO @fleet_totals (state, steps) VALUES (5, 1);
      RETURN QUERY SELECT clock_ms, n::bigint, 1::smallint, NULL::smallint;
    ELSE
      SELECT f.state INTO before FROM @fleet_finished AS f WHERE f.id = ids[n];
      IF FOUND THEN
        RETURN QUERY SELECT clock_ms, n::bigint, 3::smallint, before;
      ELSE
        RETURN QUERY SELECT clock_ms, n::bigint, 4::smallint, NULL::smallint;
      END IF;
    END IF;
  END LOOP;
END $$;

-- People put back: 1 now, 2 not now in that state, 3 its key is another's, 4 not found.
CREATE FUNCTION @fleet_redrive(ids uuid[])
RETURNS TABLE (at bigint, item bigint, what smallint, state smallint, holder uuid)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  clock_ms bigint := @fleet_clock();
  stands record;
  keeper uuid;
BEGIN
  RETURN QUERY SELECT clock_ms, NULL::bigint, NULL::smallint, NULL::smallint, NULL::uuid;
  FOR n IN 1 .. cardinality(ids) LOOP
    SELECT s.* INTO stands FROM @fleet_steps AS s WHERE s.id = ids[n] FOR UPDATE;
    IF FOUND THEN
      IF stands.state <> 0 THEN
        RETURN QUERY SELECT clock_ms, n::bigint, 2::smallint, stands.state, NULL::uuid;
      ELSE
        UPDATE @fleet_steps AS s
        SET state = 1, run_at = clock_ms, rank = clock_ms - s.priority::bigint * 60000,
            updated_at = clock_ms
        WHERE s.seq = stands.seq;
        RETURN QUERY SELECT clock_ms, n::bigint, 1::smallint, NULL::smallint, NULL::uuid;
      END IF;
      CONTINUE;
    END IF;
    SELECT f.* INTO stands FROM @fleet_finished AS f WHERE f.id = ids[n] FOR UPDATE;
    IF NOT FOUND THEN
      RETURN QUERY SELECT clock_ms, n::bigint, 4::smallint, NULL::smallint, NULL::uuid;
      CONTINUE;
    ELSIF stands.state = 3 THEN
      RETURN QUERY SELECT clock_ms, n::bigint, 2::smallint, stands.state, NULL::uuid;
      CONTINUE;
    END IF;
    IF stands.unique_key IS NOT NULL THEN
      INSERT INTO @fleet_unique (key, id) VALUES (stands.unique_key, stands.id)
        ON CONFLICT DO NOTHING;
      SELECT u.id INTO keeper FROM @fleet_unique AS u WHERE u.key = stands.unique_key;
      IF keeper <> stands.id THEN
        RETURN QUERY SELECT clock_ms, n::bigint, 3::smallint, NULL::smallint, keeper;
        CONTINUE;
      END IF;
    END IF;
    DELETE FROM @fleet_finished AS f WHERE f.seq = stands.seq;
    INSERT INTO @fleet_steps (seq, id, kind, state, priority, rank, run_at, attempt,
        attempts_max, timeout_ms, claimed_by, claimed_at, unique_key, unique_until, last_error,
        created_at, updated_at, args, metadata)
      VALUES (stands.seq, stands.id, stands.kind, 1, stands.priority,
        clock_ms - stands.priority::bigint * 60000, clock_ms, stands.attempt,
        stands.attempts_max, stands.timeout_ms, stands.claimed_by, stands.claimed_at,
        stands.unique_key, stands.unique_until, stands.last_error, stands.created_at, clock_ms,
        stands.args, stands.metadata);
    UPDATE @fleet_dead_letters AS d SET redriven_at = clock_ms
      WHERE d.seq = stands.seq AND d.redriven_at IS NULL;
    INSERT INTO @fleet_totals (state, steps) VALUES (stands.state, -1);
    RETURN QUERY SELECT clock_ms, n::bigint, 1::smallint, NULL::smallint, NULL::uuid;
  END LOOP;
END $$;

-- Submitting from any program inside a transaction of its own:
--   SELECT fleet_submit('mail', '{"to": "ann"}');
-- Gives the id of the step that stands: the new one, or the one that held the id or key before.
CREATE FUNCTION @fleet_submit(
  kind text, args json DEFAULT '{}', metadata json DEFAULT '{}', priority integer DEFAULT 0,
  max_retries integer DEFAULT 3, delay_ms bigint DEFAULT 0, timeout_ms bigint DEFAULT NULL,
  unique_key text DEFAULT NULL, unique_until text DEFAULT 'forgotten', id uuid DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
  -- As a UUID of version 7, so that later ones sort behind earlier ones.
  its_id uuid := coalesce(id, encode(
    set_byte(overlay(uuid_send(gen_random_uuid())
             PLACING substring(int8send(@fleet_clock()) FROM 3) FROM 1 FOR 6),
             6, (get_byte(uuid_send(gen_random_uuid()), 6) & 15) | 112), 'hex')::uuid);
  its_args text := btrim(coalesce(args, '{}')::text, E' \t\r\n');
  its_metadata text := btrim(coalesce(metadata, '{}')::text, E' \t\r\n');
  stands uuid;
BEGIN
  IF kind IS NULL OR kind !~ '^[A-Za-z0-9_-]{1,128}$' THEN
    RAISE EXCEPTION 'kind must be 1 to 128 letters, digits, _ or -' USING ERRCODE = '22023';
  ELSIF left(its_args, 1) <> '{' THEN
    RAISE EXCEPTION 'args must be a JSON object' USING ERRCODE = '22023';
  ELSIF left(its_metadata, 1) <> '{' THEN
    RAISE EXCEPTION 'metadata must be a JSON object' USING ERRCODE = '22023';
  ELSIF 31 + octet_length(kind) + octet_length(its_args) + octet_length(its_metadata) > 1048576
  THEN
    RAISE EXCEPTION 'kind, args and metadata must have at most 1048576 bytes together'
      USING ERRCODE = '22023';
  ELSIF coalesce(priority, 0) NOT BETWEEN -1000000 AND 1000000 THEN
    RAISE EXCEPTION 'priority must be from -1000000 to 1000000' USING ERRCODE = '22023';
  ELSIF coalesce(max_retries, 3) NOT BETWEEN 0 AND 10 THEN
    RAISE EXCEPTION 'max_retries must be from 0 to 10' USING ERRCODE = '22023';
  ELSIF coalesce(delay_ms, 0) NOT BETWEEN 0 AND 31622400000 THEN
    RAISE EXCEPTION 'delay_ms must be from 0 to 31622400000' USING ERRCODE = '22023';
  ELSIF timeout_ms NOT BETWEEN 1 AND 604800000 THEN
    RAISE EXCEPTION 'timeout_ms must be from 1 to 604800000' USING ERRCODE = '22023';
  ELSIF octet_length(unique_key) NOT BETWEEN 1 AND 255 THEN
    RAISE EXCEPTION 'unique_key must be 1 to 255 bytes' USING ERRCODE = '22023';
  ELSIF coalesce(unique_until, 'forgotten') NOT IN ('finished', 'forgotten') THEN
    RAISE EXCEPTION 'unique_until must be finished or forgotten' USING ERRCODE = '22023';
  END IF;
  SELECT m.id INTO stands FROM @fleet_submit_many(
    ARRAY[its_id], ARRAY[kind], ARRAY[its_args], ARRAY[its_metadata],
    ARRAY[coalesce(priority, 0)], ARRAY[coalesce(max_retries, 3) + 1],
    ARRAY[coalesce(delay_ms, 0)], ARRAY[NULL::bigint], ARRAY[timeout_ms], ARRAY[unique_key],
    ARRAY[CASE WHEN unique_until = 'finished' THEN 0 ELSE 1 END::smallint]) AS m
    WHERE m.id IS NOT NULL;
  RETURN coalesce(stands, its_id);
END $$;
