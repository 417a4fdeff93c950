-- Run after the functions were made, by the same transaction.

-- These act with the owner's rights or for those who do.
REVOKE ALL ON FUNCTION
  @fleet_retain(bigint, bigint, bigint, bigint, integer), @fleet_parts_ahead(bigint),
  @fleet_make_part(bigint, bigint), @fleet_drop_part(text), @fleet_hold(text, bigint[]),
  @fleet_walk_part(text, bigint, bigint) FROM PUBLIC;

-- Roles that could do the work before can do it now.
DO $$
DECLARE
  worker text;
BEGIN
  FOR worker IN
    SELECT DISTINCT CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE acl.grantee::regrole::text END
    FROM pg_catalog.pg_class AS c, aclexplode(c.relacl) AS acl
    WHERE c.oid = '@fleet_steps'::regclass AND acl.privilege_type = 'DELETE'
      AND acl.grantee <> c.relowner
  LOOP
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON @fleet_finished TO %1$s;
      GRANT SELECT ON @fleet_parts TO %1$s;
      GRANT EXECUTE ON FUNCTION @fleet_retain(bigint, bigint, bigint, bigint, integer) TO %1$s',
      worker);
  END LOOP;
END $$;
