"""A simulated provider to try Tollway and one's own software against."""
