"""What no process could use is refused where it is written."""

from tollway.store.migrations.script import run

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Run the SQL beside this file."""
    run(__file__)
