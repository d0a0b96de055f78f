"""Files on disk: the staging file that replaces its target atomically, and digests."""
