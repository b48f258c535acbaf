-- The key that a secret opens now.
SELECT id FROM tollway.virtual_keys
WHERE (hash = $1 OR (previous_hash = $1 AND previous_valid_until > now()))
    AND revoked_at IS NULL AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now())
