"""How models and providers are to be talked to, and which operation an attempt was part of."""

from tollway.store.migrations.script import run

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Run the SQL beside this file."""
    run(__file__)
