-- What no process could use is refused where it is written, and a row that stands there all the same holds up nothing but
-- itself: no edit of another row, and no change of its own that leaves the odd value alone. Only functions and triggers
-- are replaced: the release before goes on working.

-- The next three say the same as routing/addresses.py; a test compares them. None of it hangs on the database's locale,
-- nor on what this version of PostgreSQL takes for an address.

CREATE FUNCTION tollway.ipv6_address(host text) RETURNS inet
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
DECLARE
    address text := host;  -- in lower case, without brackets
    quad text[] := regexp_match(address, '^(.*:)(?:(0|[1-9][0-9]{0,2})\.)(?:(0|[1-9][0-9]{0,2})\.)(?:(0|[1-9][0-9]{0,2})\.)(0|[1-9][0-9]{0,2})$');
    one_group CONSTANT text := '[0-9a-f]{1,4}';
    groups CONSTANT text := one_group || '(?::' || one_group || ')*';
    halves text[];
    missing int;
BEGIN
    IF quad IS NOT NULL THEN
        IF GREATEST(quad[2]::int, quad[3]::int, quad[4]::int, quad[5]::int) > 255 THEN
            RETURN NULL;
        END IF;
        address := quad[1] || to_hex(quad[2]::int * 256 + quad[3]::int) || ':' || to_hex(quad[4]::int * 256 + quad[5]::int);
    END IF;
    halves := regexp_match(address, '^(' || groups || ')?::(' || groups || ')?$');
    IF halves IS NULL THEN
        RETURN CASE WHEN address ~ ('^' || one_group || '(?::' || one_group || '){7}$') THEN address::inet END;
    END IF;
    missing := 8 - COALESCE(cardinality(string_to_array(halves[1], ':')), 0) - COALESCE(cardinality(string_to_array(halves[2], ':')), 0);
    IF missing < 1 THEN
        RETURN NULL;
    END IF;
    RETURN concat_ws(':', halves[1], array_to_string(array_fill('0'::text, ARRAY[missing]), ':'), halves[2])::inet;
END $$;

CREATE FUNCTION tollway.is_forbidden_address(address inet) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
DECLARE
    forbidden CONSTANT inet[] := ARRAY['169.254.0.0/16', '100.100.100.200', '168.63.129.16', '192.0.0.192'];
    bits bytea;
    inner_bits bytea[] := '{}';
BEGIN
    IF family(address) = 4 THEN
        RETURN address <<= ANY (forbidden);
    ELSIF address <<= ANY (ARRAY['fe80::/10', 'fd00:ec2::/32', 'fd20:ce::254', 'fd00:42::42']::inet[]) THEN
        RETURN true;
    END IF;
    -- IPv4 addresses that are wrapped into this one.
    bits := substring(inet_send(address) FROM 5);
    IF address <<= ANY (ARRAY['::/96', '::ffff:0:0/96', '::ffff:0:0:0/96', '64:ff9b::/96']::inet[]) THEN
        inner_bits := ARRAY[substring(bits FROM 13 FOR 4)];
    ELSIF address <<= '64:ff9b:1::/48' THEN  -- behind a prefix of 96, 64, 56 or 48 bits; the ninth byte is left out
        inner_bits := ARRAY[
            substring(bits FROM 13 FOR 4),
            substring(bits FROM 10 FOR 4),
            substring(bits FROM 8 FOR 1) || substring(bits FROM 10 FOR 3),
            substring(bits FROM 7 FOR 2) || substring(bits FROM 10 FOR 2)
        ];
    ELSIF address <<= '2002::/16' THEN
        inner_bits := ARRAY[substring(bits FROM 3 FOR 4)];
    ELSIF address <<= '2001::/32' THEN  -- Teredo: the server, and the client with every bit turned
        inner_bits := ARRAY[substring(bits FROM 5 FOR 4), substring(inet_send(~address) FROM 17 FOR 4)];
    END IF;
    IF substring(bits FROM 9 FOR 4) IN ('\x00005efe', '\x02005efe') THEN
        inner_bits := inner_bits || substring(bits FROM 13 FOR 4);
    END IF;
    RETURN EXISTS (
        SELECT FROM unnest(inner_bits) AS four
        WHERE '0.0.0.0'::inet + ('x' || encode(four, 'hex'))::bit(32)::bigint <<= ANY (forbidden)
    );
END $$;

CREATE OR REPLACE FUNCTION tollway.address_problem(url text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
DECLARE
    parts text[] := regexp_match(url, '^[Hh][Tt][Tt][Pp][Ss]?://(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?(?:/[A-Za-z0-9._~!$&''()*+,;=:@%-]*)*$');
    host text := rtrim(lower(parts[1] COLLATE "C"), '.');
    address inet;
BEGIN
    IF url ~ '^builtin:[a-z]+$' THEN
        RETURN NULL;
    ELSIF host IS NULL OR parts[2]::int NOT BETWEEN 1 AND 65535 THEN
        RETURN 'the address must be http(s)://host[:port][/path], without user name, query or fragment';
    ELSIF host ~ '^\[' THEN
        address := tollway.ipv6_address(btrim(host, '[]'));
        IF address IS NULL THEN
            RETURN 'the address holds no IPv6 address that can be read';
        END IF;
    ELSIF host ~ '^(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+))*$' THEN
        IF host !~ '^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(\.|$)){4}$' THEN
            RETURN 'an IPv4 address is written as four decimal numbers';
        END IF;
        address := host::inet;
    END IF;
    IF tollway.is_forbidden_address(address) OR host IN ('metadata', 'metadata.google.internal', 'metadata.goog', 'instance-data') THEN
        RETURN 'link-local and metadata addresses are never accepted';
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION tollway.check_provider() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    problem text := tollway.address_problem(NEW.api_base);
BEGIN
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'provider "%": %', NEW.name, problem
            USING HINT = 'For example https://api.openai.com/v1', ERRCODE = 'check_violation';
    ELSIF array_ndims(NEW.quirks) > 1 THEN
        RAISE EXCEPTION 'provider "%": quirks are one list of names', NEW.name USING ERRCODE = 'check_violation';
    END IF;
    NEW.api_base := rtrim(NEW.api_base, '/');
    NEW.dialect := COALESCE(NEW.dialect, CASE NEW.name WHEN 'mistral' THEN 'mistral' ELSE 'openai' END);
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER check_values
    BEFORE INSERT OR UPDATE OF name, dialect, api_base, quirks ON tollway.providers
    FOR EACH ROW EXECUTE FUNCTION tollway.check_provider();

CREATE OR REPLACE TRIGGER check_values BEFORE INSERT OR UPDATE OF name, fallback ON tollway.models
    FOR EACH ROW EXECUTE FUNCTION tollway.check_model();

-- The names in a fallback; NULL for a text that is no array of them.
CREATE FUNCTION tollway.fallback_names(fallback text) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
BEGIN
    RETURN ARRAY(SELECT jsonb_array_elements_text(fallback::jsonb));
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END $$;

-- Judged at the end of the transaction: the row that was written, as it is by then, and those that fall back to a name
-- that is gone.
CREATE OR REPLACE FUNCTION tollway.check_fallbacks() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    model text;
    missing text;
BEGIN
    IF TG_OP <> 'DELETE' THEN
        SELECT m.name, f.name INTO model, missing
            FROM tollway.models m, unnest(tollway.fallback_names(m.fallback)) AS f (name)
            WHERE m.id = NEW.id AND NOT EXISTS (SELECT FROM tollway.models WHERE name = f.name) LIMIT 1;
    END IF;
    IF TG_OP <> 'INSERT' AND missing IS NULL AND NOT EXISTS (SELECT FROM tollway.models WHERE name = OLD.name) THEN
        SELECT m.name, OLD.name INTO model, missing
            FROM tollway.models m WHERE OLD.name = ANY (tollway.fallback_names(m.fallback)) LIMIT 1;
    END IF;
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'model "%" would fall back to "%", which is no model', model, missing
            USING HINT = 'Insert that model first or in the same transaction, or change the fallback.',
                ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER check_fallbacks ON tollway.models;
CREATE CONSTRAINT TRIGGER check_fallbacks AFTER INSERT OR UPDATE OF name, fallback OR DELETE ON tollway.models
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION tollway.check_fallbacks();
