"""The official client libraries against the gateway."""
