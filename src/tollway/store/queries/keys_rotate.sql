-- The secret so far stays valid for the overlap; one that was rotated away before ends now.
UPDATE tollway.virtual_keys
SET previous_hash = hash, previous_valid_until = now() + $4::interval, hash = $2, hint = $3
WHERE id = $1 AND revoked_at IS NULL AND deleted_at IS NULL
RETURNING changed_in::text::bigint
