-- The ledger becomes a table of months, with smaller rows that name their price by its id; what they add up to is kept
-- beside it by the table itself, whoever inserts. The release before cannot post into it: its journals wait.

ALTER TABLE tollway.ledger RENAME TO ledger_before;
ALTER TABLE tollway.ledger_before RENAME CONSTRAINT ledger_pkey TO ledger_before_pkey;

CREATE TABLE tollway.price_cards (
    id bigint PRIMARY KEY,
    rates jsonb NOT NULL
);
COMMENT ON TABLE tollway.price_cards IS 'what calls were billed by, for ever: the rates that an entry''s price_id names';

-- Wide columns first, so that nothing is lost between them.
CREATE TABLE tollway.ledger (
    started_at timestamptz NOT NULL,
    price_id bigint,
    revision bigint,
    input_tokens integer NOT NULL DEFAULT 0,
    cached_input_tokens integer NOT NULL DEFAULT 0,
    output_tokens integer NOT NULL DEFAULT 0,
    reasoning_tokens integer NOT NULL DEFAULT 0,
    duration_ms integer,
    first_byte_ms integer,
    attempt smallint NOT NULL DEFAULT 1,
    status smallint,
    stream boolean,
    priced boolean NOT NULL DEFAULT true,
    charged boolean NOT NULL,
    cost numeric NOT NULL CONSTRAINT "cost is a finite number" CHECK (cost BETWEEN -1e30 AND 1e30),
    call_id text NOT NULL,
    kind text NOT NULL DEFAULT 'call' CONSTRAINT "kind is call or adjustment" CHECK (kind IN ('call', 'adjustment')),
    key_id text NOT NULL,
    model text,
    provider text,
    upstream_model text,
    operation text,
    outcome text NOT NULL,
    state text NOT NULL,
    others jsonb,
    service_tier text,
    doubt text,
    cause text,
    PRIMARY KEY (call_id, attempt, started_at)
) PARTITION BY RANGE (started_at);
CREATE TABLE tollway.ledger_default PARTITION OF tollway.ledger DEFAULT;
COMMENT ON TABLE tollway.ledger IS 'one row per attempt at a provider, never changed; by months (UTC)';
COMMENT ON TABLE tollway.ledger_default IS 'entries of moments that no clock should show';
COMMENT ON COLUMN tollway.ledger.upstream_model IS 'the provider''s name of the model; NULL: the same name';
COMMENT ON COLUMN tollway.ledger.others IS 'counts of rare kinds of tokens and of units that are none; NULL: none';
COMMENT ON COLUMN tollway.ledger.price_id IS 'the price card that it was billed by; NULL: none is kept';
COMMENT ON COLUMN tollway.ledger.doubt IS 'why the cost is not certain; NULL: it is';
COMMENT ON COLUMN tollway.ledger.operation IS 'what was asked for: the path of OpenAI''s API below /v1/';

-- What entries add up to, at four grains. The grain decides which of the names are told apart; the others are empty.
CREATE TABLE tollway.usage_rollups (
    grain text NOT NULL,
    starts_at timestamptz NOT NULL,
    input_tokens bigint NOT NULL,
    cached_input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    requests integer NOT NULL,
    answered integer NOT NULL,
    attempts integer NOT NULL,
    unpriced integer NOT NULL,
    estimated integer NOT NULL,
    doubtful integer NOT NULL,
    cost numeric NOT NULL,
    key_id text NOT NULL,
    model text NOT NULL,
    provider text NOT NULL,
    PRIMARY KEY (starts_at, key_id, model, provider, grain)
) PARTITION BY LIST (grain);
CREATE TABLE tollway.usage_hours PARTITION OF tollway.usage_rollups FOR VALUES IN ('hour') WITH (fillfactor = 90);
CREATE TABLE tollway.usage_key_days PARTITION OF tollway.usage_rollups FOR VALUES IN ('key day') WITH (fillfactor = 90);
CREATE TABLE tollway.usage_key_weeks PARTITION OF tollway.usage_rollups FOR VALUES IN ('key week') WITH (fillfactor = 90);
CREATE TABLE tollway.usage_model_days PARTITION OF tollway.usage_rollups FOR VALUES IN ('model day') WITH (fillfactor = 50);
COMMENT ON TABLE tollway.usage_hours IS 'the sums of the ledger by hour, key, model and provider; they outlive the entries';
COMMENT ON TABLE tollway.usage_key_days IS 'the sums of the ledger by day (UTC) and key';
COMMENT ON TABLE tollway.usage_key_weeks IS 'the sums of the ledger by week (from Monday, UTC) and key';
COMMENT ON TABLE tollway.usage_model_days IS 'the sums of the ledger by day (UTC), model and provider';
COMMENT ON COLUMN tollway.usage_rollups.requests IS 'of clients, each counted once however many attempts it took';
COMMENT ON COLUMN tollway.usage_rollups.answered IS 'attempts that are charged; tokens and cost are theirs';
COMMENT ON COLUMN tollway.usage_rollups.attempts IS 'at providers, those on the house too';
COMMENT ON COLUMN tollway.usage_rollups.unpriced IS 'of the charged ones: no price was known, nothing is in the cost';
COMMENT ON COLUMN tollway.usage_rollups.estimated IS 'of the charged ones: the provider did not say the tokens';
COMMENT ON COLUMN tollway.usage_rollups.doubtful IS 'of the charged ones: their cost is not certain';

-- All who insert keep one order of rows: no deadlock. Requests of a key's total are the charged ones.
CREATE FUNCTION tollway.add_up() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    INSERT INTO tollway.key_totals AS t (key_id, total_cost, requests, input_tokens, output_tokens)
        SELECT key_id, sum(cost), count(*) FILTER (WHERE kind = 'call'), sum(input_tokens), sum(output_tokens)
        FROM entries WHERE charged GROUP BY key_id ORDER BY key_id
        ON CONFLICT (key_id) DO UPDATE SET
            total_cost = t.total_cost + EXCLUDED.total_cost,
            requests = t.requests + EXCLUDED.requests,
            input_tokens = t.input_tokens + EXCLUDED.input_tokens,
            output_tokens = t.output_tokens + EXCLUDED.output_tokens,
            updated_at = EXCLUDED.updated_at;
    INSERT INTO tollway.usage_rollups AS u
        (grain, starts_at, key_id, model, provider, requests, answered, attempts, unpriced, estimated, doubtful,
            input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost)
        SELECT CASE GROUPING (hour, day, key_id) WHEN 2 THEN 'hour' WHEN 4 THEN 'key day' WHEN 6 THEN 'key week' ELSE 'model day' END,
            COALESCE(hour, day, week), COALESCE(key_id, ''), COALESCE(model, ''), COALESCE(provider, ''),
            sum(requests), sum(answered), sum(attempts), sum(unpriced), sum(estimated), sum(doubtful),
            sum(input_tokens), sum(cached_input_tokens), sum(output_tokens), sum(reasoning_tokens), sum(cost)
        FROM (
            SELECT date_trunc('hour', started_at, 'UTC') AS hour, date_trunc('day', started_at, 'UTC') AS day,
                date_trunc('week', started_at, 'UTC') AS week, key_id, model, provider,
                count(*) FILTER (WHERE attempt = 1 AND kind = 'call') AS requests,
                count(*) FILTER (WHERE charged AND kind = 'call') AS answered,
                count(*) FILTER (WHERE kind = 'call') AS attempts,
                count(*) FILTER (WHERE charged AND NOT priced) AS unpriced,
                count(*) FILTER (WHERE charged AND state = 'estimated') AS estimated,
                count(*) FILTER (WHERE charged AND doubt <> '') AS doubtful,
                COALESCE(sum(input_tokens) FILTER (WHERE charged), 0) AS input_tokens,
                COALESCE(sum(cached_input_tokens) FILTER (WHERE charged), 0) AS cached_input_tokens,
                COALESCE(sum(output_tokens) FILTER (WHERE charged), 0) AS output_tokens,
                COALESCE(sum(reasoning_tokens) FILTER (WHERE charged), 0) AS reasoning_tokens,
                COALESCE(sum(cost) FILTER (WHERE charged), 0) AS cost
            FROM entries GROUP BY 1, 2, 3, 4, 5, 6
        ) AS e
        GROUP BY GROUPING SETS ((hour, key_id, model, provider), (day, key_id), (week, key_id), (day, model, provider))
        ORDER BY 1, 2, 3, 4, 5
        ON CONFLICT (starts_at, key_id, model, provider, grain) DO UPDATE SET
            requests = u.requests + EXCLUDED.requests,
            answered = u.answered + EXCLUDED.answered,
            attempts = u.attempts + EXCLUDED.attempts,
            unpriced = u.unpriced + EXCLUDED.unpriced,
            estimated = u.estimated + EXCLUDED.estimated,
            doubtful = u.doubtful + EXCLUDED.doubtful,
            input_tokens = u.input_tokens + EXCLUDED.input_tokens,
            cached_input_tokens = u.cached_input_tokens + EXCLUDED.cached_input_tokens,
            output_tokens = u.output_tokens + EXCLUDED.output_tokens,
            reasoning_tokens = u.reasoning_tokens + EXCLUDED.reasoning_tokens,
            cost = u.cost + EXCLUDED.cost;
    RETURN NULL;
END $$;

-- What is meant for the whole ledger holds for each of its tables by itself, too.
CREATE FUNCTION tollway.guard_ledger(name text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER add_up AFTER INSERT ON tollway.%I REFERENCING NEW TABLE AS entries EXECUTE FUNCTION tollway.add_up()', name);
    EXECUTE format('CREATE TRIGGER refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON tollway.%I EXECUTE FUNCTION tollway.refuse(%L)',
        name, 'Entries are never changed; correct them by a row of kind adjustment. Old ones are forgotten by: tollway ledger prune');
END $$;

-- Makes the table of a day's month, unless it is there, or the month is forgotten, or none that entries of today fall
-- into. Whoever may post may call it. What cannot have its locks within a second waits: entries go to the default.
-- Where some lie there already, only who gathers makes the table: that copies them first, while others go on posting,
-- and then holds these up for as long as it takes to look for what came meanwhile (a second or two for a million).
CREATE FUNCTION tollway.ledger_partition(day date, gather boolean DEFAULT false) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET lock_timeout = '1s' AS $$
DECLARE
    name CONSTANT text := 'ledger_' || to_char(day, 'YYYY_MM');
    first CONSTANT timestamptz := date_trunc('month', day::timestamp) AT TIME ZONE 'UTC';
    following CONSTANT timestamptz := (date_trunc('month', day::timestamp) + interval '1 month') AT TIME ZONE 'UTC';
    scattered boolean;
BEGIN
    IF first NOT BETWEEN now() - interval '2 years' AND now() + interval '1 month'
            OR first < (SELECT pruned_before FROM tollway.installation) THEN
        RETURN false;
    END IF;
    IF to_regclass('tollway.' || name) IS NOT NULL THEN
        RETURN true;
    END IF;
    PERFORM pg_advisory_xact_lock('tollway.ledger'::regclass::oid::bigint);  -- of several posters one makes it
    IF to_regclass('tollway.' || name) IS NOT NULL THEN
        RETURN true;
    END IF;
    scattered := EXISTS (SELECT FROM tollway.ledger_default WHERE started_at >= first AND started_at < following);
    IF scattered AND NOT gather THEN
        RETURN false;
    END IF;
    -- With its bounds and its index, so that nothing is read or built while others wait.
    EXECUTE format('CREATE TABLE tollway.%I (LIKE tollway.ledger INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES,
        CONSTRAINT bounds CHECK (started_at >= %L AND started_at < %L))', name, first, following);
    IF scattered THEN
        EXECUTE format('INSERT INTO tollway.%I SELECT * FROM tollway.ledger_default WHERE started_at >= $1 AND started_at < $2', name)
            USING first, following;
    END IF;
    LOCK TABLE tollway.ledger_default IN ACCESS EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM tollway.ledger_default WHERE started_at >= first AND started_at < following) THEN
        EXECUTE format('INSERT INTO tollway.%I SELECT * FROM tollway.ledger_default d WHERE started_at >= $1 AND started_at < $2
            AND NOT EXISTS (SELECT FROM tollway.%I m
                WHERE (m.call_id, m.attempt, m.started_at) = (d.call_id, d.attempt, d.started_at))', name, name) USING first, following;
        ALTER TABLE tollway.ledger_default DISABLE TRIGGER refuse;
        DELETE FROM tollway.ledger_default WHERE started_at >= first AND started_at < following;
        ALTER TABLE tollway.ledger_default ENABLE TRIGGER refuse;
    END IF;
    EXECUTE format('ALTER TABLE tollway.ledger ATTACH PARTITION tollway.%I FOR VALUES FROM (%L) TO (%L)', name, first, following);
    EXECUTE format('ALTER TABLE tollway.%I DROP CONSTRAINT bounds', name);
    PERFORM tollway.guard_ledger(name);
    RETURN true;
END $$;

-- Forgets the entries of whole months that ended before, in the default as well; the sums stay. It needs the rights of
-- the ledger's owner. What cannot have its locks within a second is left for the next time, by an error. It counts first,
-- and holds up posting only for as long as it takes to drop tables.
CREATE FUNCTION tollway.prune_ledger(before timestamptz) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog SET lock_timeout = '1s' AS $$
DECLARE
    until CONSTANT timestamptz := date_trunc('month', before, 'UTC');
    names text[];
    name text;
    entries bigint;
    gone bigint := 0;
BEGIN
    IF before IS NULL OR before > now() THEN
        RAISE EXCEPTION 'entries to come cannot be forgotten' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock('tollway.ledger'::regclass::oid::bigint);  -- one at a time
    names := ARRAY(SELECT table_name FROM tollway.ledger_months WHERE ends_at <= until ORDER BY 1);
    FOREACH name IN ARRAY names LOOP
        EXECUTE format('SELECT count(*) FROM tollway.%I', name) INTO entries;
        gone := gone + entries;
    END LOOP;
    IF EXISTS (SELECT FROM tollway.ledger_default WHERE started_at < until) THEN
        ALTER TABLE tollway.ledger_default DISABLE TRIGGER refuse;
        DELETE FROM tollway.ledger_default WHERE started_at < until;
        GET DIAGNOSTICS entries = ROW_COUNT;
        ALTER TABLE tollway.ledger_default ENABLE TRIGGER refuse;
        gone := gone + entries;
    END IF;
    FOREACH name IN ARRAY names LOOP
        EXECUTE format('DROP TABLE tollway.%I', name);
    END LOOP;
    UPDATE tollway.installation SET pruned_before = until WHERE pruned_before IS NULL OR pruned_before < until;
    RETURN gone;
END $$;
ALTER TABLE tollway.installation ADD COLUMN pruned_before timestamptz;
COMMENT ON COLUMN tollway.installation.pruned_before IS 'entries of the ledger from before this moment are gone, and no more of them are taken';

CREATE VIEW tollway.ledger_months AS
    SELECT c.relname::text AS table_name, to_date(substr(c.relname, 8), 'YYYY_MM')::timestamp AT TIME ZONE 'UTC' AS starts_at,
        (to_date(substr(c.relname, 8), 'YYYY_MM') + interval '1 month') AT TIME ZONE 'UTC' AS ends_at
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'tollway.ledger'::regclass AND c.relname ~ '^ledger_[0-9]{4}_[0-9]{2}$';

-- The entries so far, their totals unchanged ----------------------------------------------------------------------------

SELECT tollway.guard_ledger('ledger_default');
SELECT tollway.ledger_partition(month::date)
    FROM (SELECT DISTINCT date_trunc('month', started_at, 'UTC') AT TIME ZONE 'UTC' FROM tollway.ledger_before) AS m (month);

SELECT tollway.guard_ledger('ledger');
CREATE TEMPORARY TABLE totals_before ON COMMIT DROP AS SELECT * FROM tollway.key_totals;

-- Entries that people wrote may lack the names of a call, or have them twice.
INSERT INTO tollway.ledger (started_at, revision, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens,
        duration_ms, first_byte_ms, attempt, status, stream, priced, charged, cost, call_id, kind, key_id, model, provider,
        upstream_model, operation, outcome, state, cause)
    SELECT started_at, revision, LEAST(input_tokens, 2147483647), LEAST(cached_input_tokens, 2147483647),
        LEAST(output_tokens, 2147483647), LEAST(reasoning_tokens, 2147483647), LEAST(duration_ms, 2147483647),
        LEAST(first_byte_ms, 2147483647), LEAST(COALESCE(attempt, 1), 32767), LEAST(status, 32767), stream, priced, charged,
        cost, CASE WHEN attempt_id = call_id || '-' || attempt THEN call_id ELSE attempt_id END, kind, key_id, model, provider,
        NULLIF(upstream_model, model), operation, outcome, state, NULLIF(cause, '')
    FROM tollway.ledger_before;

TRUNCATE tollway.key_totals;
INSERT INTO tollway.key_totals SELECT * FROM totals_before;

-- Who could do something with the ledger still can. A table that somebody's view depends on stays beside it, as it was.
DO $$
DECLARE
    grantee text;
    privilege text;
    again text;
BEGIN
    FOR grantee, privilege, again IN
        SELECT CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END,
            g.privilege_type || COALESCE(' (' || quote_ident(a.attname) || ')', ''),
            CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
        FROM pg_class c
            JOIN LATERAL (
                SELECT NULL::name AS attname, c.relacl AS acl
                UNION ALL SELECT old.attname, old.attacl FROM pg_attribute old
                    JOIN pg_attribute new ON new.attrelid = 'tollway.ledger'::regclass AND new.attname = old.attname
                    WHERE old.attrelid = c.oid AND old.attnum > 0
            ) a ON true
            JOIN LATERAL aclexplode(a.acl) g ON g.grantee <> c.relowner
        WHERE c.oid = 'tollway.ledger_before'::regclass
    LOOP
        EXECUTE format('GRANT %s ON tollway.ledger TO %s%s', privilege, grantee, again);
    END LOOP;
    BEGIN
        DROP TABLE tollway.ledger_before;
    EXCEPTION WHEN dependent_objects_still_exist THEN
        COMMENT ON TABLE tollway.ledger_before IS
            'the ledger before it became one of months, for views that somebody made on it; nothing is added any more';
    END;
END $$;

-- "Users" ---------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION tollway.users_update() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF NEW.id IS DISTINCT FROM OLD.id OR NEW."virtualKey" IS DISTINCT FROM OLD."virtualKey" THEN
        RAISE EXCEPTION 'a virtual key and its id cannot be changed by SQL'
            USING HINT = 'For a new secret run: tollway keys rotate ' || OLD.id, ERRCODE = 'feature_not_supported';
    ELSIF NEW."totalCost" IS NULL THEN
        RAISE EXCEPTION '"totalCost" is a number' USING ERRCODE = 'not_null_violation';
    END IF;
    -- Only what this statement changes: another one may be changing the other column.
    UPDATE tollway.virtual_keys SET
        requests_per_minute = CASE WHEN NEW."requestsPerMinute" IS DISTINCT FROM OLD."requestsPerMinute"
            THEN NEW."requestsPerMinute" ELSE requests_per_minute END,
        tokens_per_minute = CASE WHEN NEW."tokensPerMinute" IS DISTINCT FROM OLD."tokensPerMinute"
            THEN NEW."tokensPerMinute" ELSE tokens_per_minute END
        WHERE id = OLD.id;
    IF NEW."openaiKey" IS DISTINCT FROM OLD."openaiKey" THEN
        PERFORM tollway.store_provider_key(OLD.id, 'openai', NEW."openaiKey");
    END IF;
    IF NEW."mistralKey" IS DISTINCT FROM OLD."mistralKey" THEN
        PERFORM tollway.store_provider_key(OLD.id, 'mistral', NEW."mistralKey");
    END IF;
    IF NEW."totalCost" <> OLD."totalCost" THEN
        -- The difference, not the value: what was spent since the statement began is kept.
        INSERT INTO tollway.ledger (call_id, kind, key_id, started_at, outcome, state, cost, charged, cause)
            VALUES ('adj_' || gen_random_uuid(), 'adjustment', OLD.id, now(), 'adjustment', 'exact',
                NEW."totalCost" - OLD."totalCost", true, 'totalCost set by ' || session_user);
    END IF;
    RETURN NEW;
END $$;
