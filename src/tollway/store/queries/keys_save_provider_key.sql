SELECT tollway.store_provider_key($1, $2, $3)
