UPDATE tollway.virtual_keys SET revoked_at = COALESCE(revoked_at, now())
WHERE id = $1 AND deleted_at IS NULL
RETURNING changed_in::text::bigint
