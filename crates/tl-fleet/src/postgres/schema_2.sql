-- Version 2: finished steps lie in parts, so that old ones are dropped whole.

DROP FUNCTION IF EXISTS
  @fleet_claim(text, bigint, text[], integer, bigint, integer, bigint);

-- A constraint is read and planned anew by every statement that writes; the functions alone write
-- states.
ALTER TABLE @fleet_steps DROP CONSTRAINT fleet_steps_state_check;
ALTER TABLE @fleet_finished DROP CONSTRAINT fleet_finished_state_check;

-- What was there becomes the first part, as it is. Failed steps are kept longest and move out.
ALTER TABLE @fleet_finished RENAME TO fleet_finished_first;
ALTER INDEX @fleet_finished_pkey RENAME TO fleet_finished_first_pkey;
ALTER INDEX @fleet_finished_id_key RENAME TO fleet_finished_first_id_key;
ALTER INDEX @fleet_finished_age RENAME TO fleet_finished_first_age;
ALTER INDEX @fleet_finished_named RENAME TO fleet_finished_first_named;

CREATE TABLE @fleet_finished (LIKE @fleet_finished_first INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
  PARTITION BY RANGE ((CASE state WHEN 4 THEN -1::bigint ELSE finished_at END));
CREATE TABLE @fleet_finished_failed (LIKE @fleet_finished_first INCLUDING ALL);
CREATE TABLE @fleet_finished_rest (LIKE @fleet_finished_first INCLUDING ALL);

WITH failed AS (DELETE FROM @fleet_finished_first WHERE state = 4 RETURNING *)
  INSERT INTO @fleet_finished_failed SELECT * FROM failed;

-- Parts that are bound to a time; `swept` is how far retention has come in one that it is about
-- to drop.
CREATE TABLE @fleet_parts (
  name text PRIMARY KEY,
  since bigint NOT NULL,
  until bigint NOT NULL,
  swept bigint NOT NULL DEFAULT 0
);
INSERT INTO @fleet_parts (name, since, until)
  SELECT 'fleet_finished_first', 0,
         greatest(floor(date_part('epoch', clock_timestamp()) * 1000)::bigint,
                  (SELECT max(finished_at) + 1 FROM @fleet_finished_first));

ALTER TABLE @fleet_finished ATTACH PARTITION @fleet_finished_failed
  FOR VALUES FROM (MINVALUE) TO (0);
DO $$
BEGIN
  EXECUTE format('ALTER TABLE @fleet_finished ATTACH PARTITION @fleet_finished_first
                    FOR VALUES FROM (0) TO (%s)', (SELECT until FROM @fleet_parts));
END $$;
ALTER TABLE @fleet_finished ATTACH PARTITION @fleet_finished_rest DEFAULT;
