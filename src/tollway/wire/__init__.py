"""What clients send and receive: bytes to domain values and back, pure."""
