"""Those that are compared. Each is a function that takes a Job, does it, and raises if it can't."""
