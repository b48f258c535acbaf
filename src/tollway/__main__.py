"""``python -m tollway`` is the command ``tollway``."""

from tollway.cli.main import run

run()
