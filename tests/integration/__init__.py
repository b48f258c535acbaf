"""The gateway as its users meet it: real process, real PostgreSQL, scripted providers."""
