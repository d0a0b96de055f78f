"""What runs a download: the machine, retry with back-off, the circuit breaker, the speed limit."""
