"""Alembic only orders the steps and writes them out as one script; ``store/migrate.py`` runs it through asyncpg.

So neither a second database driver nor greenlets are needed, and all steps and Alembic's own bookkeeping are one
transaction.
"""

from alembic import context

context.configure(dialect_name="postgresql", version_table_schema="tollway")
context.run_migrations()
