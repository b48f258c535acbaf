INSERT INTO tollway.virtual_keys (id, hash, hint, name, requests_per_minute, tokens_per_minute, allowed_models, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
RETURNING changed_in::text::bigint
