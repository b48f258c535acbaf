"""Which provider next: configuration snapshot, plan, health, retries; pure."""
