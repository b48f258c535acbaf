-- After a dump was restored into another cluster, rows name transactions that have not happened there yet. Every read
-- of changes would take them for new, until they have. They are given the present one.
DO $$
DECLARE
    name text;
    future boolean;
BEGIN
    FOREACH name IN ARRAY ARRAY['virtual_keys', 'providers', 'models', 'builtin_prices', 'prices', 'installation'] LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM tollway.%I WHERE changed_in >= pg_snapshot_xmax(pg_current_snapshot()))', name)
            INTO future;
        IF future THEN
            EXECUTE format('UPDATE tollway.%I SET changed_in = pg_current_xact_id()', name);
        END IF;
    END LOOP;
END $$;
