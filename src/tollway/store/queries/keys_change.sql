-- Each value goes with a flag that says whether it is to change: NULL is a value.
UPDATE tollway.virtual_keys
SET
    requests_per_minute = CASE WHEN $2 THEN $3 ELSE requests_per_minute END,
    tokens_per_minute = CASE WHEN $4 THEN $5 ELSE tokens_per_minute END,
    allowed_models = CASE WHEN $6 THEN $7 ELSE allowed_models END,
    expires_at = CASE WHEN $8 THEN $9 ELSE expires_at END,
    name = CASE WHEN $10 THEN $11 ELSE name END
WHERE id = $1 AND deleted_at IS NULL
RETURNING changed_in::text::bigint
