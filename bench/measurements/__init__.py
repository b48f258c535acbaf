"""One module per chapter of the report: each starts what it needs, measures it, and ends it."""
