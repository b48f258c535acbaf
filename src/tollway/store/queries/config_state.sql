-- What this transaction sees, and the newest removal of a row.
SELECT pg_current_snapshot()::text, changed_in::text::bigint FROM tollway.installation
