"""Mistral's dialect of chat completions: close to OpenAI's, strict about what it does not know."""
