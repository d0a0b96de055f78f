"""Runs without a download, and a clock, for tests of what runs share."""

from pulpcore.plugin.download.futures.engine.claim import Claims
from pulpcore.plugin.download.futures.engine.run import Run


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        """Return the time (seconds)."""
        return self.now


class Runner:
    """A run that is being executed until it is interrupted.

    Attributes:
        run: The run.
    """

    def __init__(self, parent=None):
        self.steps = self._go()
        next(self.steps)
        self.run = Run(parent and parent.run.token, Claims(self.steps))

    def _go(self):
        yield

    def interrupt(self):
        """End the run without any clean-up."""
        self.steps.close()
