"""What runs a download: the run, retry with back-off, the circuit breaker, the speed limit."""
