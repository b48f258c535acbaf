-- All of it is additive with defaults: the release before goes on working.

ALTER TABLE tollway.models
    ADD COLUMN strict boolean NOT NULL DEFAULT false,
    ADD COLUMN show_reasoning boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN tollway.models.strict IS 'refuse what its provider cannot carry, rather than drop it with a warning';
COMMENT ON COLUMN tollway.models.show_reasoning IS 'show what the model thought, as reasoning_content';

ALTER TABLE tollway.providers
    ADD COLUMN quirks text[] NOT NULL DEFAULT '{}'
        CONSTRAINT "quirks are known, see docs/adding-a-provider.md" CHECK (quirks <@ ARRAY[
            'no_credential', 'no_stream_options', 'max_tokens_only', 'logprobs', 'user_after_tool', 'no_text_with_tool_calls'
        ]);
COMMENT ON COLUMN tollway.providers.quirks IS 'in what it differs from others of its dialect';

ALTER TABLE tollway.ledger ADD COLUMN operation text;
COMMENT ON COLUMN tollway.ledger.operation IS 'what was asked for: the path of OpenAI''s API below /v1/';
