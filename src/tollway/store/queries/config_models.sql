-- The columns are those of routing/snapshot.py's ModelRow, the fallback as its text, then the transaction of the last change.
SELECT
    m.name,
    m.provider,
    m.upstream_name,
    m.fallback,
    m.input_cost_per_1k,
    m.output_cost_per_1k,
    m.cached_input_cost_per_1k,
    b.periods::text,
    p.own,
    m.strict,
    m.show_reasoning,
    m.on_disconnect,
    GREATEST(m.changed_in::text::bigint, b.changed_in::text::bigint, p.changed_in)
FROM tollway.models m
LEFT JOIN tollway.builtin_prices b ON b.provider = m.provider AND b.model = COALESCE(m.upstream_name, m.name)
LEFT JOIN (
    SELECT model,
        jsonb_agg(jsonb_build_array(extract(epoch FROM valid_from), extract(epoch FROM valid_until), rates) ORDER BY valid_from, id)::text
            AS own,
        max(changed_in::text::bigint) AS changed_in
    FROM tollway.prices GROUP BY model
) p ON p.model = m.name
ORDER BY m.name
