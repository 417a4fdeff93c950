-- Steps whose lease ran out are taken from their holders, in one statement.
CREATE OR REPLACE FUNCTION @fleet_recover(steps_max integer, poison_after integer, waits_ms bigint[])
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
      SELECT s.*, s.charged + 1 AS charged_now,
             waits_ms[least(s.charged + 1, cardinality(waits_ms))] AS wait_ms,
             'the lease ran out while ' || s.claimed_by || ' held it' AS said,
             CASE WHEN s.cancel_asked THEN 5
                  WHEN s.charged + 1 >= s.attempts_max OR s.lost + 1 >= poison_after THEN 4
                  WHEN waits_ms[least(s.charged + 1, cardinality(waits_ms))] > 0 THEN 0
                  ELSE 1 END AS next
      FROM @fleet_steps AS s WHERE s.state = 2 AND s.lease_until <= clock_ms
      ORDER BY s.lease_until LIMIT steps_max FOR UPDATE SKIP LOCKED),
    gone AS (
      -- Not by place and not joined, as when claims end.
      DELETE FROM @fleet_steps AS s
      WHERE s.seq = ANY (ARRAY(SELECT l.seq FROM late AS l WHERE l.next >= 3))),
    kept AS (
      INSERT INTO @fleet_finished (seq, id, kind, state, priority, run_at, attempt, charged,
          attempts_max, timeout_ms, claimed_by, claimed_at, cancel_asked, unique_key,
          unique_until, last_error, created_at, updated_at, finished_at, args, metadata)
        SELECT l.seq, l.id, l.kind, l.next, l.priority, l.run_at, l.attempt, l.charged_now,
               l.attempts_max, l.timeout_ms, l.claimed_by, l.claimed_at, l.cancel_asked,
               l.unique_key, l.unique_until, l.said, l.created_at, clock_ms, clock_ms, l.args,
               l.metadata
        FROM late AS l WHERE l.next >= 3),
    freed AS (
      DELETE FROM @fleet_unique AS u
      WHERE u.key = ANY (ARRAY(SELECT l.unique_key FROM late AS l
                               WHERE l.next >= 3 AND l.unique_until = 0))
        AND u.id = ANY (ARRAY(SELECT l.id FROM late AS l
                              WHERE l.next >= 3 AND l.unique_until = 0))),
    back AS (
      UPDATE @fleet_steps AS s
      SET state = CASE WHEN waits_ms[least(s.charged + 1, cardinality(waits_ms))] > 0
                       THEN 0 ELSE 1 END,
          charged = s.charged + 1, lost = s.lost + 1,
          last_error = 'the lease ran out while ' || s.claimed_by || ' held it',
          run_at = clock_ms + waits_ms[least(s.charged + 1, cardinality(waits_ms))],
          rank = clock_ms + waits_ms[least(s.charged + 1, cardinality(waits_ms))]
                 - s.priority::bigint * 60000,
          token = NULL, lease_until = NULL, progress = NULL, updated_at = clock_ms
      WHERE s.seq = ANY (ARRAY(SELECT l.seq FROM late AS l WHERE l.next < 3))),
    traced AS (
      INSERT INTO @fleet_attempts (seq, attempt, pod, claimed_at, ended_at, ended)
        SELECT l.seq, l.attempt, l.claimed_by, l.claimed_at, clock_ms, 3 FROM late AS l
        -- One row that is not as it should be must not stop the recovery of all others.
        ON CONFLICT DO NOTHING),
    buried AS (
      INSERT INTO @fleet_dead_letters (seq, id, kind, attempt, reason, error, pod, died_at)
        SELECT l.seq, l.id, l.kind, l.attempt,
               CASE WHEN l.charged_now >= l.attempts_max THEN 0 ELSE 1 END, l.said, l.claimed_by,
               clock_ms
        FROM late AS l WHERE l.next = 4),
    summed AS (
      INSERT INTO @fleet_totals (state, steps)
        SELECT l.next, count(*) FROM late AS l WHERE l.next >= 3 GROUP BY l.next)
    SELECT clock_ms, l.id, l.claimed_by, l.attempt, l.charged_now, l.attempts_max, l.claimed_at,
           l.next::smallint
    FROM late AS l;
END $$;
