-- Steps without unique keys whose ids nobody has had: nearly all there are. An id that is found
-- to be taken ends the statement with a unique violation, and the caller comes again by
-- fleet_submit_many.
CREATE OR REPLACE FUNCTION @fleet_submit_fresh(
  ids uuid[], kinds text[], all_args text[], all_metadata text[], priorities integer[],
  all_attempts_max integer[], delays_ms bigint[], ats_ms bigint[], timeouts_ms bigint[]
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  clock_ms bigint := @fleet_clock();
BEGIN
  INSERT INTO @fleet_steps (id, kind, state, priority, rank, run_at, attempts_max, timeout_ms,
      created_at, updated_at, args, metadata)
    SELECT i.id, i.kind, CASE WHEN i.due > clock_ms THEN 0 ELSE 1 END, i.priority,
           i.due - i.priority::bigint * 60000, i.due, i.attempts_max, i.timeout_ms,
           clock_ms, clock_ms, i.args, i.metadata
    FROM (SELECT u.*, greatest(clock_ms, clock_ms + u.delay_ms, u.at_ms) AS due
          FROM unnest(ids, kinds, all_args, all_metadata, priorities, all_attempts_max, delays_ms,
                      ats_ms, timeouts_ms)
               AS u (id, kind, args, metadata, priority, attempts_max, delay_ms, at_ms,
                     timeout_ms)) AS i;
  -- A statement of its own: one may have been finished while its id was waited for.
  IF EXISTS (SELECT FROM @fleet_finished AS f WHERE f.id = ANY (ids)) THEN
    RAISE unique_violation USING MESSAGE = 'a step of this id is finished';
  END IF;
  RETURN clock_ms;
END $$;

-- The one way in. Arrays of one length; gives the time and how many are new, then a row for each
-- item that is not, with the step that stands in its place. One that is neither was forgotten in
-- that very moment: the caller comes again.
CREATE OR REPLACE FUNCTION @fleet_submit_many(
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

-- Submitting from any program inside a transaction of its own:
--   SELECT fleet_submit('mail', '{"to": "ann"}');
-- Gives the id of the step that stands: the new one, or the one that held the id or key before.
CREATE OR REPLACE FUNCTION @fleet_submit(
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
