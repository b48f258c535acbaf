-- How many other gateways hold their lock in this database.
SELECT count(DISTINCT objid) FROM pg_locks
WHERE locktype = 'advisory' AND classid = $1::int::oid AND objsubid = 2 AND objid <> $2::int::oid AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
