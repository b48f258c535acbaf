"""``python -m tollway.dataplane``: one worker, told everything by the first line of its standard input."""

import sys

from tollway.dataplane.worker import main

if __name__ == "__main__":
    sys.exit(main())
