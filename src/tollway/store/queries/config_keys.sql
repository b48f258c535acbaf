-- The virtual keys whose last change the given pg_snapshot does not show.
-- The columns are those of routing/snapshot.py's KeyRow, then two for the loader.
SELECT
    id,
    hash,
    previous_hash,
    extract(epoch FROM previous_valid_until)::float8,
    requests_per_minute,
    tokens_per_minute,
    allowed_models,
    extract(epoch FROM expires_at)::float8,
    revoked_at IS NOT NULL,
    deleted_at IS NOT NULL,
    changed_in::text::bigint
FROM tollway.virtual_keys
WHERE changed_in >= pg_snapshot_xmin($1::text::pg_snapshot)  -- lets the index find them
    AND NOT pg_visible_in_snapshot(changed_in, $1::text::pg_snapshot)
