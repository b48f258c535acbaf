-- All keys but the deleted ones, or the one that is asked for; the columns are those of store/keys.py's VirtualKey.
SELECT
    k.id,
    k.name,
    k.hint,
    k.requests_per_minute,
    k.tokens_per_minute,
    k.allowed_models,
    ARRAY(SELECT provider FROM tollway.provider_keys WHERE key_id = k.id ORDER BY provider),
    k.expires_at,
    CASE WHEN k.previous_valid_until > now() THEN k.previous_valid_until END,
    k.revoked_at,
    k.created_at,
    k.updated_at,
    trim_scale(COALESCE(t.total_cost, 0)),
    COALESCE(t.requests, 0),
    COALESCE(t.input_tokens, 0),
    COALESCE(t.output_tokens, 0)
FROM tollway.virtual_keys k
LEFT JOIN tollway.key_totals t ON t.key_id = k.id
WHERE k.deleted_at IS NULL AND ($1::text IS NULL OR k.id = $1)
ORDER BY k.created_at, k.id
