SELECT name, dialect, api_base, api_version, quirks, changed_in::text::bigint FROM tollway.providers ORDER BY name
