SELECT pg_current_xact_id()::text::bigint FROM tollway.virtual_keys
WHERE id = $1 AND deleted_at IS NULL
FOR NO KEY UPDATE
