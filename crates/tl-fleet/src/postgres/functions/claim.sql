-- Steps come to who asks: takes[n] of them to owners[n], the most urgent to the first. Rows that
-- others are just taking are passed over. Rows are updated by their place, which is safe while
-- they are locked, so that no plan can choose badly. Gives each step with the number of its
-- turn, from 1.
CREATE OR REPLACE FUNCTION @fleet_claim_many(
  owners text[], takes integer[], life bigint, kinds text[], lease_ms bigint,
  promote_max integer, bytes_before_last bigint
) RETURNS TABLE (
  at bigint, id uuid, token uuid, attempt bigint, charged integer, attempts_max integer,
  kind text, priority integer, timeout_ms bigint, lease_until bigint, args text, metadata text,
  turn bigint
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  clock_ms bigint := @fleet_clock();
  steps_max bigint := takes[1];
  turns text[];
BEGIN
  IF life IS NOT NULL AND NOT EXISTS (
    SELECT FROM @fleet_pods AS p
    WHERE p.pod = owners[1] AND p.incarnation = life AND p.state = 0 AND p.lease_until > clock_ms)
  THEN
    RAISE EXCEPTION 'this life of the pod is over' USING ERRCODE = 'TLF01';
  END IF;
  IF cardinality(owners) > 1 THEN
    SELECT array_agg(u.owner ORDER BY u.n) INTO turns
      FROM unnest(owners, takes) WITH ORDINALITY AS u (owner, steps, n),
           generate_series(1, u.steps);
    steps_max := cardinality(turns);
  END IF;
  IF EXISTS (SELECT FROM @fleet_steps AS s WHERE s.state = 0 AND s.run_at <= clock_ms) THEN
    UPDATE @fleet_steps AS s SET state = 1
    WHERE s.ctid = ANY (ARRAY(
      SELECT d.ctid FROM @fleet_steps AS d WHERE d.state = 0 AND d.run_at <= clock_ms
      ORDER BY d.run_at LIMIT promote_max FOR UPDATE SKIP LOCKED));
  END IF;
  RETURN QUERY SELECT clock_ms, NULL::uuid, NULL::uuid, NULL::bigint, NULL::integer,
    NULL::integer, NULL::text, NULL::integer, NULL::bigint, NULL::bigint, NULL::text,
    NULL::text, NULL::bigint;
  RETURN QUERY
    WITH picked AS MATERIALIZED (
      SELECT one.place, row_number() OVER urgent AS turn,
             sum(one.bytes) OVER urgent - one.bytes AS before
      FROM (SELECT DISTINCT k FROM unnest(kinds) AS k) AS wanted,
           LATERAL (
             SELECT s.ctid AS place, s.rank, s.seq,
                    octet_length(s.args) + octet_length(s.metadata) AS bytes
             FROM @fleet_steps AS s
             WHERE s.state = 1 AND s.kind = wanted.k
             ORDER BY s.rank, s.seq LIMIT steps_max FOR UPDATE SKIP LOCKED
           ) AS one
      WINDOW urgent AS (ORDER BY one.rank, one.seq)
      ORDER BY one.rank, one.seq LIMIT steps_max)
    UPDATE @fleet_steps AS s
    SET state = 2, attempt = s.attempt + 1, token = gen_random_uuid(),
        claimed_by = coalesce(turns[p.turn::integer], owners[1]),
        claimed_at = clock_ms, lease_until = clock_ms + lease_ms, updated_at = clock_ms
    FROM picked AS p
    WHERE s.ctid = p.place AND p.before <= bytes_before_last AND s.state = 1
    RETURNING clock_ms, s.id, s.token, s.attempt, s.charged, s.attempts_max, s.kind, s.priority,
              s.timeout_ms, s.lease_until, s.args, s.metadata, p.turn;
END $$;
