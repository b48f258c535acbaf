"""Keys, providers, models, prices, the ledger, and the predecessor's three views."""

from tollway.store.migrations.script import run

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Run the SQL beside this file."""
    run(__file__)
