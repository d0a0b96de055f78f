"""Plans, the window of a batch, its worker threads, and iteration by ``async for``."""
