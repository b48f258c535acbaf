"""OpenAI's own ranges become data: its row says that they hold."""

from tollway.store.migrations.script import run

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Run the SQL beside this file."""
    run(__file__)
