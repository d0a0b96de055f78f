"""Runs downloads: the state machine, retry with back-off, circuit breaker, speed limit."""
