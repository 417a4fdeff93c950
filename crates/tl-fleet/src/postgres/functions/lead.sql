-- What a leader writes: nothing, unless its epoch leads now and goes on leading until this is
-- committed.
CREATE OR REPLACE FUNCTION @fleet_leads(its_epoch bigint, clock_ms bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM @fleet_leader AS l WHERE l.epoch = its_epoch AND l.lease_until > clock_ms
    FOR SHARE;
  RETURN FOUND;
END $$;

CREATE OR REPLACE FUNCTION @fleet_reap(its_epoch bigint, pods_max integer)
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
-- Leadership by compare and set. Epochs only grow, and an epoch belongs to one holder.
CREATE OR REPLACE FUNCTION @fleet_lead(its_pod text, life bigint, lease_ms bigint)
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
