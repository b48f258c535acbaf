-- Whose ranges a request is judged by is data of its provider's row. The release before goes on working: it judges every
-- request by OpenAI's, and a quirk that it does not know changes nothing for it.

ALTER TABLE tollway.providers
    DROP CONSTRAINT "quirks are known, see docs/adding-a-provider.md",
    ADD CONSTRAINT "quirks are known, see docs/adding-a-provider.md" CHECK (quirks <@ ARRAY[
        'no_credential', 'no_stream_options', 'max_tokens_only', 'openai_ranges', 'logprobs', 'user_after_tool', 'no_text_with_tool_calls'
    ]);

UPDATE tollway.providers SET quirks = quirks || '{openai_ranges}'
    WHERE dialect = 'openai' AND api_base ~* '^https://([a-z0-9-]+\.)*openai\.com(:[0-9]+)?(/|$)' AND NOT 'openai_ranges' = ANY (quirks);
