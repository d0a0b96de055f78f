"""Plans, the window of a batch, its worker threads, and iteration with ``async for``."""
