"""``python -m tollway.controlplane``."""

import sys

from tollway.controlplane.process import main

if __name__ == "__main__":
    sys.exit(main())
