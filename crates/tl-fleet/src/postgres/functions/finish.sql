-- How these are written: a plan is made once, perhaps while the tables are empty, and kept. So steps
-- are looked up by a LATERAL of one row each, or by an array of keys, and never joined: whatever
-- the planner takes the tables for, it goes by the index. `state + 0` is there lest it goes by the
-- index of claimed steps.

-- Claims end well: nearly all do. Gives the time and how many were completed; when those are not
-- all, a row follows for each that was, now or before, and an item without one had lost its claim.
-- No id comes twice. They come in order, so that two who bring the same wait on one side only.
CREATE OR REPLACE FUNCTION @fleet_complete(ids uuid[], tokens uuid[], results text[])
RETURNS TABLE (at bigint, item bigint, state smallint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  clock_ms bigint := @fleet_clock();
  done bigint;
  freed text[];
  holders uuid[];
BEGIN
  WITH held AS MATERIALIZED (
    SELECT s.*, i.result
    FROM unnest(ids, tokens, results) AS i (id, token, result),
         LATERAL (SELECT * FROM @fleet_steps AS s
                  WHERE s.id = i.id AND s.token = i.token AND s.state + 0 = 2 FOR UPDATE) AS s),
  gone AS (
    -- Not by place: a row that another transaction updates meanwhile has a new place, which the
    -- snapshot of this statement does not see.
    DELETE FROM @fleet_steps AS s WHERE s.seq = ANY (ARRAY(SELECT h.seq FROM held AS h))),
  kept AS (
    INSERT INTO @fleet_finished (seq, id, kind, state, priority, run_at, attempt, charged,
        attempts_max, timeout_ms, token, claimed_by, claimed_at, cancel_asked, progress,
        unique_key, unique_until, result, last_error, created_at, updated_at, finished_at, args,
        metadata)
      SELECT h.seq, h.id, h.kind, 3, h.priority, h.run_at, h.attempt, h.charged, h.attempts_max,
             h.timeout_ms, h.token, h.claimed_by, h.claimed_at, h.cancel_asked, h.progress,
             h.unique_key, h.unique_until, h.result, h.last_error, h.created_at, clock_ms,
             clock_ms, h.args, h.metadata
      FROM held AS h),
  summed AS (
    INSERT INTO @fleet_totals (state, steps)
      SELECT 3, count(*) FROM held AS h HAVING count(*) > 0)
  SELECT count(*), array_agg(h.unique_key) FILTER (WHERE h.unique_until = 0),
         array_agg(h.id) FILTER (WHERE h.unique_until = 0)
    INTO done, freed, holders FROM held AS h;
  IF freed IS NOT NULL THEN
    DELETE FROM @fleet_unique AS u WHERE u.key = ANY (freed) AND u.id = ANY (holders);
  END IF;
  RETURN QUERY SELECT clock_ms, done, NULL::smallint;
  IF done < cardinality(ids) THEN
    -- Those that were completed now, and reports that came again, answered as the first time.
    RETURN QUERY
      SELECT clock_ms, i.n, f.state
      FROM unnest(ids, tokens) WITH ORDINALITY AS i (id, token, n),
           LATERAL (SELECT * FROM @fleet_finished AS f
                    WHERE f.id = i.id AND f.token = i.token LIMIT 1) AS f;
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
      SELECT s.*, i.n, i.outcome, i.said, i.wait_ms,
             s.charged + CASE WHEN i.outcome IN (2, 3) THEN 1 ELSE 0 END AS charged_now,
             CASE WHEN i.outcome = 1 THEN 3
                  WHEN i.outcome = 4 OR s.cancel_asked THEN 5
                  WHEN i.outcome = 3 OR (i.outcome = 2 AND s.charged + 1 >= s.attempts_max) THEN 4
                  WHEN i.outcome = 2 AND i.wait_ms > 0 THEN 0
                  ELSE 1 END AS next
      FROM unnest(ids, tokens, outcomes, texts, waits_ms)
             WITH ORDINALITY AS i (id, token, outcome, said, wait_ms, n),
           LATERAL (SELECT * FROM @fleet_steps AS s
                    WHERE s.id = i.id AND s.token = i.token AND s.state + 0 = 2 FOR UPDATE) AS s),
    -- Of one claim that is reported twice in a batch the first counts.
    first AS MATERIALIZED (SELECT DISTINCT ON (h.seq) h.* FROM held AS h ORDER BY h.seq, h.n),
    gone AS (
      DELETE FROM @fleet_steps AS s
      WHERE s.seq = ANY (ARRAY(SELECT f.seq FROM first AS f WHERE f.next >= 3))),
    kept AS (
      INSERT INTO @fleet_finished (seq, id, kind, state, priority, run_at, attempt, charged,
          attempts_max, timeout_ms, token, claimed_by, claimed_at, cancel_asked, progress,
          unique_key, unique_until, result, last_error, created_at, updated_at, finished_at, args,
          metadata)
        SELECT f.seq, f.id, f.kind, f.next, f.priority, f.run_at, f.attempt, f.charged_now,
               f.attempts_max, f.timeout_ms, f.token, f.claimed_by, f.claimed_at, f.cancel_asked,
               f.progress, f.unique_key, f.unique_until,
               CASE WHEN f.outcome = 1 THEN f.said END,
               CASE WHEN f.outcome IN (2, 3) THEN f.said ELSE f.last_error END,
               f.created_at, clock_ms, clock_ms, f.args, f.metadata
        FROM first AS f WHERE f.next >= 3),
    freed AS (
      DELETE FROM @fleet_unique AS u
      WHERE u.key = ANY (ARRAY(SELECT f.unique_key FROM first AS f
                               WHERE f.next >= 3 AND f.unique_until = 0))
        AND u.id = ANY (ARRAY(SELECT f.id FROM first AS f
                              WHERE f.next >= 3 AND f.unique_until = 0))),
    again AS MATERIALIZED (
      SELECT array_agg(f.seq) AS seqs, array_agg(f.next) AS nexts, array_agg(f.outcome) AS outcomes,
             array_agg(f.said) AS said, array_agg(clock_ms + f.wait_ms) AS dues
      FROM first AS f WHERE f.next < 3),
    back AS (
      UPDATE @fleet_steps AS s
      SET state = a.nexts[array_position(a.seqs, s.seq)], updated_at = clock_ms, token = NULL,
          charged = s.charged
            + CASE WHEN a.outcomes[array_position(a.seqs, s.seq)] = 2 THEN 1 ELSE 0 END,
          lease_until = NULL, progress = NULL,
          last_error = CASE WHEN a.outcomes[array_position(a.seqs, s.seq)] = 2
                            THEN a.said[array_position(a.seqs, s.seq)] ELSE s.last_error END,
          run_at = CASE WHEN a.outcomes[array_position(a.seqs, s.seq)] = 2
                        THEN a.dues[array_position(a.seqs, s.seq)] ELSE s.run_at END,
          rank = CASE WHEN a.outcomes[array_position(a.seqs, s.seq)] = 2
                      THEN a.dues[array_position(a.seqs, s.seq)] - s.priority::bigint * 60000
                      ELSE s.rank END
      FROM again AS a WHERE s.seq = ANY ((SELECT seqs FROM again)::bigint[])),
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
      FROM unnest(ids, tokens) WITH ORDINALITY AS i (id, token, n),
           LATERAL (SELECT * FROM @fleet_finished AS f
                    WHERE f.id = i.id AND f.token = i.token LIMIT 1) AS f;
  END IF;
END $$;
