-- People call off: 1 now, 2 asked, 3 finished before in that state, 4 not found.
CREATE OR REPLACE FUNCTION @fleet_cancel(ids uuid[])
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
CREATE OR REPLACE FUNCTION @fleet_redrive(ids uuid[])
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
    -- One that retention has come past only lies there until its part is dropped: what hung on it
    -- is gone, and it is counted out.
    IF NOT FOUND OR (stands.state <> 4 AND EXISTS (
      SELECT FROM @fleet_parts AS p
      WHERE p.since <= stands.finished_at AND p.until > stands.finished_at
        AND p.swept >= stands.seq))
    THEN
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
