"""The command ``tollway``."""

import os
import sys
from typing import NoReturn


def run() -> NoReturn:
    """Do what the arguments say; ends the process."""
    if sys.argv[1:] == ["serve"]:  # the long-lived process carries no command-line libraries, and starts sooner
        from tollway.supervisor import serve

        sys.exit(serve(os.environ))
    from tollway.cli.app import app

    app()
    sys.exit(0)
