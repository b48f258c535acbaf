"""Prices are lists of rates with the time in which they hold; seeded models have none of their own."""

from tollway.store.migrations.script import run

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Run the SQL beside this file."""
    run(__file__)
