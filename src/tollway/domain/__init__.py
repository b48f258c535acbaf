"""Values and rules of the trade; imports nothing else of Tollway."""
