-- Finished steps lie in parts, each a table:
--   fleet_finished_failed   those given up, forgotten one by one, for they are kept longest
--   fleet_finished_first    those that were there before there were parts, and
--   fleet_finished_rest     those that no part was made for in time; both forgotten one by one
--   fleet_finished_<since>  those finished from then on for a while; dropped whole
-- fleet_parts lists the ones that are bound to a time. They are as long as an eighth of the time for
-- which steps are kept, so that none stays much longer for the sake of the others.

-- What hangs on steps that are forgotten.
CREATE OR REPLACE FUNCTION @fleet_forget(seqs bigint[], keys text[], holders uuid[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM @fleet_dead_letters AS d WHERE d.seq = ANY (seqs);
  DELETE FROM @fleet_effects AS e WHERE e.seq = ANY (seqs);
  DELETE FROM @fleet_attempts AS a WHERE a.seq = ANY (seqs);
  DELETE FROM @fleet_unique AS u WHERE u.key = ANY (keys) AND u.id = ANY (holders);
END $$;

-- Makes the part from `since` on; false when it could not be had without a wait, or when steps
-- were finished meanwhile that belong into it.
CREATE OR REPLACE FUNCTION @fleet_make_part(its_since bigint, its_until bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  its_name text := 'fleet_finished_' || its_since;
BEGIN
  EXECUTE format('CREATE TABLE @%1$I (LIKE @fleet_finished INCLUDING ALL);
                  ALTER TABLE @%1$I ADD PRIMARY KEY (seq);
                  CREATE UNIQUE INDEX ON @%1$I (id);
                  CREATE INDEX ON @%1$I (unique_key) WHERE unique_key IS NOT NULL;
                  ALTER TABLE @fleet_finished ATTACH PARTITION @%1$I FOR VALUES FROM (%2$s) TO (%3$s)',
                 its_name, its_since, its_until);
  INSERT INTO @fleet_parts (name, since, until) VALUES (its_name, its_since, its_until);
  RETURN true;
EXCEPTION WHEN lock_not_available OR check_violation THEN
  RETURN false;
END $$;

-- Sees to it that what is finished within the next `width_ms` has its part.
CREATE OR REPLACE FUNCTION @fleet_parts_ahead(width_ms bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  clock_ms bigint := @fleet_clock();
  last bigint;
BEGIN
  SELECT max(p.until) INTO last FROM @fleet_parts AS p;
  IF last >= clock_ms + width_ms THEN
    RETURN;
  END IF;
  -- Close to the last one, unless nobody has made any for long. A minute ahead nobody has
  -- finished anything yet.
  IF last > clock_ms - width_ms AND @fleet_make_part(last, last + width_ms) THEN
    RETURN;
  END IF;
  last := greatest(last, clock_ms + 60000);
  PERFORM @fleet_make_part(last, last + width_ms);
END $$;

CREATE OR REPLACE FUNCTION @fleet_drop_part(its_name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  -- The first one holds whatever came before the parts, and its place stays.
  IF its_name = 'fleet_finished_first' THEN
    TRUNCATE @fleet_finished_first;
  ELSE
    EXECUTE format('DROP TABLE @%I', its_name);
  END IF;
  DELETE FROM @fleet_parts AS p WHERE p.name = its_name;
EXCEPTION WHEN lock_not_available THEN
  -- Somebody reads it for long. The next look finds it.
  NULL;
END $$;

-- Holds cancelled steps of a part, which alone could be put back, until what hangs on them is
-- forgotten; false when somebody else holds one of them or has just put it back.
CREATE OR REPLACE FUNCTION @fleet_hold(its_name text, seqs bigint[]) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  held bigint;
BEGIN
  EXECUTE format('SELECT count(*) FROM (SELECT FROM @%I WHERE seq = ANY ($1)
                                        ORDER BY seq FOR UPDATE) AS f', its_name)
    INTO held USING seqs;
  RETURN held = cardinality(seqs);
EXCEPTION WHEN lock_not_available THEN
  RETURN false;
END $$;

-- A part that is longer than it should be, the first one or one from when more was kept: its steps
-- are forgotten one by one as they come due, until what is left may be dropped whole. Steps lie in
-- the order in which they were finished, except where room was used again, so the part is gone
-- through by place up to where most are too young. The next call begins where the first one was
-- too young. Gives how many were forgotten, and whether there may be more.
CREATE OR REPLACE FUNCTION @fleet_walk_part(
  its_name text, due_ms bigint, steps_max bigint, OUT gone bigint, OUT more boolean
) LANGUAGE plpgsql AS $$
DECLARE
  -- A block holds some fifty rows at most.
  blocks_of_a_look constant bigint := 16;
  looks_max constant integer := 500;
  blocks bigint := pg_relation_size(format('@%I', its_name)::regclass)
                   / current_setting('block_size')::bigint;
  place bigint := (SELECT p.walked FROM @fleet_parts AS p WHERE p.name = its_name);
  stays bigint;
  slice record;
BEGIN
  gone := 0;
  more := true;
  FOR look IN 1 .. looks_max LOOP
    EXECUTE format(
      'WITH gone AS (
         DELETE FROM @%1$I AS f WHERE f.ctid = ANY (ARRAY(
           SELECT o.ctid FROM @%1$I AS o
           WHERE o.ctid >= $1 AND o.ctid < $2 AND o.finished_at <= $3
           LIMIT $4 FOR UPDATE SKIP LOCKED))
         RETURNING f.seq, f.id, f.unique_key, f.state)
       SELECT count(*) AS steps, coalesce(array_agg(seq), ''{}'') AS seqs,
              array_agg(unique_key) FILTER (WHERE unique_key IS NOT NULL) AS keys,
              array_agg(id) FILTER (WHERE unique_key IS NOT NULL) AS holders,
              count(*) FILTER (WHERE state = 3) AS completed,
              count(*) FILTER (WHERE state = 5) AS cancelled,
              (SELECT count(*) FROM @%1$I AS o
               WHERE o.ctid >= $1 AND o.ctid < $2 AND o.finished_at > $3) AS young
       FROM gone', its_name)
      INTO slice USING format('(%s,0)', place)::tid,
                       format('(%s,0)', place + blocks_of_a_look)::tid, due_ms, steps_max - gone;
    IF slice.steps > 0 THEN
      PERFORM @fleet_forget(slice.seqs, slice.keys, slice.holders);
      INSERT INTO @fleet_totals (state, steps)
        VALUES (3, -slice.completed), (5, -slice.cancelled);
      gone := gone + slice.steps;
    END IF;
    IF slice.young > 0 THEN
      stays := coalesce(stays, place);
    END IF;
    EXIT WHEN gone >= steps_max;
    IF slice.young > slice.steps OR place + blocks_of_a_look >= blocks THEN
      more := false;
      stays := coalesce(stays, 0);
      EXIT;
    END IF;
    place := place + blocks_of_a_look;
  END LOOP;
  -- After so many looks at places that were used again there is no way back.
  IF gone >= steps_max OR NOT more THEN
    place := coalesce(stays, place);
  END IF;
  UPDATE @fleet_parts AS p SET walked = place WHERE p.name = its_name AND p.walked <> place;
END $$;

-- With the rights of the owner, for it makes and drops parts. Its caller must lead.
CREATE OR REPLACE FUNCTION @fleet_retain(
  its_epoch bigint, finished_ms bigint, dead_ms bigint, pods_ms bigint, steps_max integer
) RETURNS TABLE (at bigint, leads boolean, steps bigint, pods bigint, more boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  clock_ms bigint := @fleet_clock();
  its_turn boolean := @fleet_leads(its_epoch, clock_ms);
  -- What is dropped whole costs a look at each row, so many more fit into one call.
  sweep constant bigint := 20;
  room bigint := steps_max;
  gone bigint := 0;
  due_ms bigint := clock_ms - finished_ms;
  width_ms bigint := greatest(finished_ms / 8, 60000);
  is_more boolean := false;
  aged record;
  part record;
  slice record;
  pods_gone bigint;
  empty text[] := '{}';
BEGIN
  IF NOT its_turn THEN
    RETURN QUERY SELECT clock_ms, false, 0::bigint, 0::bigint, false;
    RETURN;
  END IF;
  PERFORM set_config('lock_timeout', '200ms', true);
  PERFORM @fleet_fold_totals();
  FOR aged IN
    SELECT * FROM (VALUES
      ('fleet_finished_first', 3, finished_ms), ('fleet_finished_first', 5, finished_ms),
      ('fleet_finished_rest', 3, finished_ms), ('fleet_finished_rest', 5, finished_ms),
      ('fleet_finished_failed', 4, dead_ms)) AS v (name, state, keep_ms)
  LOOP
    EXECUTE format(
      'WITH gone AS (
         DELETE FROM @%1$I AS f WHERE f.ctid = ANY (ARRAY(
           SELECT o.ctid FROM @%1$I AS o WHERE o.state = $1 AND o.finished_at <= $2
           ORDER BY o.finished_at LIMIT $3 FOR UPDATE SKIP LOCKED))
         RETURNING f.seq, f.id, f.unique_key)
       SELECT count(*) AS steps, coalesce(array_agg(seq), ''{}'') AS seqs,
              array_agg(unique_key) FILTER (WHERE unique_key IS NOT NULL) AS keys,
              array_agg(id) FILTER (WHERE unique_key IS NOT NULL) AS holders
       FROM gone', aged.name)
      INTO slice USING aged.state::smallint, clock_ms - aged.keep_ms, room;
    CONTINUE WHEN slice.steps = 0;
    PERFORM @fleet_forget(slice.seqs, slice.keys, slice.holders);
    INSERT INTO @fleet_totals (state, steps) VALUES (aged.state, -slice.steps);
    room := room - slice.steps;
    gone := gone + slice.steps;
  END LOOP;
  FOR part IN
    SELECT p.name FROM @fleet_parts AS p
    WHERE p.since <= due_ms AND p.until > due_ms + width_ms AND p.swept = 0
      AND p.name <> 'fleet_finished_first'
  LOOP
    EXIT WHEN room <= 0;
    SELECT w.gone, w.more INTO slice FROM @fleet_walk_part(part.name, due_ms, room) AS w;
    room := room - slice.gone;
    gone := gone + slice.gone;
    is_more := is_more OR slice.more;
  END LOOP;
  room := room * sweep;
  FOR part IN
    SELECT p.name, p.swept FROM @fleet_parts AS p WHERE p.until <= due_ms
    ORDER BY p.since LIMIT 8
  LOOP
    EXIT WHEN room <= 0;
    EXECUTE format(
      'SELECT count(*) AS steps, max(seq) AS last, coalesce(array_agg(seq), ''{}'') AS seqs,
              array_agg(unique_key) FILTER (WHERE unique_key IS NOT NULL) AS keys,
              array_agg(id) FILTER (WHERE unique_key IS NOT NULL) AS holders,
              array_agg(seq) FILTER (WHERE state = 5) AS cancelled_seqs,
              count(*) FILTER (WHERE state = 3) AS completed,
              count(*) FILTER (WHERE state = 5) AS cancelled
       FROM (SELECT seq, id, unique_key, state FROM @%I WHERE seq > $1 ORDER BY seq LIMIT $2) AS o',
      part.name) INTO slice USING part.swept, room;
    -- Whatever is being put back in this moment is left to the next look.
    CONTINUE WHEN slice.cancelled > 0 AND NOT @fleet_hold(part.name, slice.cancelled_seqs);
    IF slice.steps > 0 THEN
      PERFORM @fleet_forget(slice.seqs, slice.keys, slice.holders);
      INSERT INTO @fleet_totals (state, steps)
        VALUES (3, -slice.completed), (5, -slice.cancelled);
      UPDATE @fleet_parts AS p SET swept = slice.last WHERE p.name = part.name;
    END IF;
    IF slice.steps < room THEN
      empty := empty || part.name;
    END IF;
    room := room - slice.steps;
    gone := gone + slice.steps;
  END LOOP;
  DELETE FROM @fleet_pods AS p WHERE p.state = 1 AND p.heartbeat <= clock_ms - pods_ms;
  GET DIAGNOSTICS pods_gone = ROW_COUNT;
  -- Parts are made and dropped last: from then on everybody waits for the end of this transaction.
  -- Where that takes a wait of our own, it is left for the next time.
  PERFORM @fleet_parts_ahead(width_ms);
  FOR part IN SELECT unnest(empty) AS name LOOP
    PERFORM @fleet_drop_part(part.name);
  END LOOP;
  RETURN QUERY SELECT clock_ms, true, gone, pods_gone, is_more OR room <= 0;
END $$;
