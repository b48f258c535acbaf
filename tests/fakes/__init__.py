"""Stand-ins for what surrounds the gateway, and the gateway itself as a process: shared by all tests."""
