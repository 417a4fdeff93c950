-- The store's clock, milliseconds since 1970. Every deadline is made and compared by it, inside
-- the statement; no pod's clock is ever looked at.
CREATE OR REPLACE FUNCTION @fleet_clock() RETURNS bigint LANGUAGE sql VOLATILE
  AS $$ SELECT floor(date_part('epoch', clock_timestamp()) * 1000)::bigint $$;

CREATE OR REPLACE FUNCTION @fleet_fold_totals() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF (SELECT count(*) > 256 FROM (SELECT 1 FROM @fleet_totals LIMIT 257) AS few) THEN
    WITH old AS (
      DELETE FROM @fleet_totals WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM @fleet_totals LIMIT 100000 FOR UPDATE SKIP LOCKED))
      RETURNING state, steps)
    INSERT INTO @fleet_totals (state, steps)
      SELECT state, sum(steps) FROM old GROUP BY state;
  END IF;
END $$;
