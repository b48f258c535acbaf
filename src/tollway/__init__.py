"""Tollway: an LLM gateway that speaks OpenAI's API."""
