-- Effects are noted under claims that are still held: 1 now, 2 before, 3 fenced, 4 too many: a
-- step has a thousand at most, as the limits of the program say.
CREATE OR REPLACE FUNCTION @fleet_note_effects(ids uuid[], tokens uuid[], keys text[], vals text[])
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
      WHERE s.id = ids[n] AND s.token = tokens[n] AND s.state + 0 = 2 FOR UPDATE;
    IF NOT FOUND THEN
      RETURN QUERY SELECT clock_ms, n::bigint, 3::smallint, NULL::text;
      CONTINUE;
    END IF;
    INSERT INTO @fleet_effects (seq, key, value, noted_at)
      SELECT held, keys[n], vals[n], clock_ms
      WHERE (SELECT count(*) FROM @fleet_effects AS e WHERE e.seq = held) < 1000
      ON CONFLICT DO NOTHING;
    IF FOUND THEN
      RETURN QUERY SELECT clock_ms, n::bigint, 1::smallint, NULL::text;
      CONTINUE;
    END IF;
    SELECT e.value INTO earlier FROM @fleet_effects AS e WHERE e.seq = held AND e.key = keys[n];
    IF FOUND THEN
      RETURN QUERY SELECT clock_ms, n::bigint, 2::smallint, earlier;
    ELSE
      RETURN QUERY SELECT clock_ms, n::bigint, 4::smallint, NULL::text;
    END IF;
  END LOOP;
END $$;
