"""The ledger by months, smaller, and summed up as it is written."""

from tollway.store.migrations.script import run

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Run the SQL beside this file."""
    run(__file__)
