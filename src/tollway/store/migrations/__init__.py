"""Alembic's environment: numbered steps forward, each a SQL file with a Python file of the same name beside it."""
