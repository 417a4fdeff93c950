-- Claims end well: nearly all do. Gives the time and how many were completed; when those are not
-- all, a row follows for each that was, now or before, and an item without one had lost its claim.
-- Of one claim that is reported twice in a batch the first counts. Who brings many brings them in
-- the order of their ids, so that no two wait for each other.
CREATE OR REPLACE FUNCTION @fleet_complete(ids uuid[], tokens uuid[], results text[])
RETURNS TABLE (at bigint, item bigint, state smallint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  clock_ms bigint := @fleet_clock();
  done bigint[];
  freed text[];
  holders uuid[];
BEGIN
  WITH gone AS (
    DELETE FROM @fleet_steps AS s
    USING unnest(ids, tokens, results) WITH ORDINALITY AS i (id, token, result, n)
    WHERE s.id = i.id AND s.token = i.token AND s.state = 2
    RETURNING s.*, i.result, i.n),
  kept AS (
    INSERT INTO @fleet_finished (seq, id, kind, state, priority, run_at, attempt, charged,
        attempts_max, timeout_ms, token, claimed_by, claimed_at, cancel_asked, progress,
        unique_key, unique_until, result, last_error, created_at, updated_at, finished_at, args,
        metadata)
      SELECT g.seq, g.id, g.kind, 3, g.priority, g.run_at, g.attempt, g.charged, g.attempts_max,
             g.timeout_ms, g.token, g.claimed_by, g.claimed_at, g.cancel_asked, g.progress,
             g.unique_key, g.unique_until, g.result, g.last_error, g.created_at, clock_ms,
             clock_ms, g.args, g.metadata
      FROM gone AS g)
  SELECT array_agg(g.n), array_agg(g.unique_key) FILTER (WHERE g.unique_until = 0),
         array_agg(g.id) FILTER (WHERE g.unique_until = 0)
    INTO done, freed, holders FROM gone AS g;
  IF freed IS NOT NULL THEN
    DELETE FROM @fleet_unique AS u USING unnest(freed, holders) AS f (key, id)
      WHERE u.key = f.key AND u.id = f.id;
  END IF;
  IF done IS NOT NULL THEN
    INSERT INTO @fleet_totals (state, steps) VALUES (3, cardinality(done));
  END IF;
  RETURN QUERY SELECT clock_ms, coalesce(cardinality(done), 0)::bigint, NULL::smallint;
  IF cardinality(done) IS DISTINCT FROM cardinality(ids) THEN
    -- A report that came again is answered as the first time.
    RETURN QUERY
      SELECT clock_ms, i.n, f.state
      FROM unnest(ids, tokens) WITH ORDINALITY AS i (id, token, n)
      JOIN @fleet_finished AS f ON f.id = i.id AND f.token = i.token;
  END IF;
END $$;

-- Claims end one way or the other: outcome 1 completed, 2 failed, 3 fatal, 4 cancelled, 5
-- released. Gives the time, then the state that each item led to; an item without a row had lost
-- its claim.
CREATE OR REPLACE FUNCTION @fleet_finish(
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
      ORDER BY s.id, i.n FOR UPDATE OF s),
    -- Of one claim that is reported twice in a batch the first counts.
    first AS MATERIALIZED (SELECT DISTINCT ON (held.id) held.* FROM held ORDER BY held.id, held.n),
    gone AS (
      -- Not by place: a row that another transaction updates meanwhile has a new place, which the
      -- snapshot of this statement does not see.
      DELETE FROM @fleet_steps AS s USING first AS f WHERE s.seq = f.seq AND f.next >= 3
      RETURNING s.*, f.outcome, f.said, f.next, f.charged AS charged_now),
    kept AS (
      INSERT INTO @fleet_finished (seq, id, kind, state, priority, run_at, attempt, charged,
          attempts_max, timeout_ms, token, claimed_by, claimed_at, cancel_asked, progress,
          unique_key, unique_until, result, last_error, created_at, updated_at, finished_at, args,
          metadata)
        SELECT g.seq, g.id, g.kind, g.next, g.priority, g.run_at, g.attempt, g.charged_now,
               g.attempts_max, g.timeout_ms, g.token, g.claimed_by, g.claimed_at, g.cancel_asked,
               g.progress, g.unique_key, g.unique_until,
               CASE WHEN g.outcome = 1 THEN g.said END,
               CASE WHEN g.outcome IN (2, 3) THEN g.said ELSE g.last_error END,
               g.created_at, clock_ms, clock_ms, g.args, g.metadata
        FROM gone AS g),
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
