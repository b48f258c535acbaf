"""HTTP/1.1 on asyncio transports, server and pooled client; has never heard of an LLM."""
