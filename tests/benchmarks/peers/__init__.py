"""The peers. Each is a function that takes a Job, does it, and raises if it fails."""
