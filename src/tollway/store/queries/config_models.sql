-- The columns are those of routing/snapshot.py's ModelRow, the fallback as its text, then the transaction of the last change.
SELECT
    m.name,
    m.provider,
    m.upstream_name,
    m.fallback,
    m.input_cost_per_1k,
    m.output_cost_per_1k,
    m.cached_input_cost_per_1k,
    b.input_cost_per_1k,
    b.output_cost_per_1k,
    b.cached_input_cost_per_1k,
    m.strict,
    m.show_reasoning,
    m.on_disconnect,
    GREATEST(m.changed_in::text::bigint, b.changed_in::text::bigint)
FROM tollway.models m
LEFT JOIN tollway.builtin_prices b ON b.provider = m.provider AND b.model = COALESCE(m.upstream_name, m.name)
ORDER BY m.name
