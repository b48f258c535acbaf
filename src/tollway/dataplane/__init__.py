"""The way of one request: the only asynchronous orchestration of calls."""
