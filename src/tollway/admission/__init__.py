"""May this call start: who asks, and what its limits still allow; pure decisions."""
