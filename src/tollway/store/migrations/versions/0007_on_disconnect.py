"""What becomes of an answer whose client has hung up is a matter of its model."""

from tollway.store.migrations.script import run

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Run the SQL beside this file."""
    run(__file__)
