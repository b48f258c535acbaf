"""Logs, redaction, metrics."""
