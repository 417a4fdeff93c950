-- What a leader writes: nothing, unless its epoch leads now and goes on leading until this is
-- committed. The lock is one that a renewal of the same epoch passes and a new epoch does not: who
-- leads goes on leading while its own sweep is under way.
CREATE OR REPLACE FUNCTION @fleet_leads(its_epoch bigint, clock_ms bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM @fleet_leader AS l WHERE l.epoch = its_epoch AND l.lease_until > clock_ms
    FOR KEY SHARE;
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

-- Leadership by compare and set. Epochs only grow, and an epoch belongs to one holder. Nobody waits
-- here for a sweep, for whoever asks has heartbeats to send: a place that has got free is not given
-- away before the writes of its last epoch have come to their end, and who asks hears that another
-- leads.
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
    UPDATE @fleet_leader AS l SET lease_until = clock_ms + lease_ms
    WHERE l.incarnation = life AND l.epoch > 0 AND l.lease_until > clock_ms
    RETURNING clock_ms, true, l.pod, l.incarnation, l.epoch, l.lease_until;
  IF FOUND THEN
    RETURN;
  END IF;
  PERFORM FROM @fleet_leader AS l WHERE l.lease_until <= clock_ms FOR UPDATE SKIP LOCKED;
  IF FOUND THEN
    RETURN QUERY
      UPDATE @fleet_leader AS l
      SET pod = its_pod, incarnation = life, lease_until = clock_ms + lease_ms, epoch = l.epoch + 1
      RETURNING clock_ms, true, l.pod, l.incarnation, l.epoch, l.lease_until;
  ELSE
    RETURN QUERY SELECT clock_ms, false, l.pod, l.incarnation, l.epoch, l.lease_until
      FROM @fleet_leader AS l;
  END IF;
END $$;
