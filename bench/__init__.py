"""What Tollway costs next to nginx: ``make bench``, or ``python -m bench --help``."""
