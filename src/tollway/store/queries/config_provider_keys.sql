SELECT key_id, provider, secret FROM tollway.provider_keys WHERE key_id = ANY ($1)
