-- What a role needs that works in a fleet. Run by the owner of the tables:
--   psql -v role=worker -f grants.sql
-- The role makes no tables and changes none; it cannot read anything outside this schema.
GRANT USAGE ON SCHEMA SCHEMA_NAME TO :"role";
GRANT SELECT ON @fleet_meta, @fleet_parts TO :"role";
GRANT SELECT, INSERT, UPDATE, DELETE ON @fleet_steps, @fleet_finished, @fleet_unique,
  @fleet_attempts, @fleet_effects, @fleet_dead_letters, @fleet_pods, @fleet_totals TO :"role";
GRANT SELECT, UPDATE ON @fleet_leader, @fleet_lives TO :"role";
GRANT USAGE ON SEQUENCE @fleet_seq, @fleet_dead_letters_number TO :"role";
-- Forgetting drops whole tables with the owner's rights; only a leader's epoch is obeyed.
GRANT EXECUTE ON FUNCTION @fleet_retain(bigint, bigint, bigint, bigint, integer) TO :"role";
