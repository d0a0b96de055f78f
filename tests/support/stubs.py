"""Downloads without a network, which wait for the test."""

import threading

from pulpcore.plugin.download.futures import Download

SECONDS = 20  # far more than anything takes: it only ends a test that hangs


class Nop(Download):
    """A download that does nothing, as written by plugins of 2017."""

    def __init__(self, attachment=None):
        super().__init__("", None)
        self.attachment = attachment

    def _send(self):
        pass

    def __call__(self):
        """Do nothing."""


class Stub(Download):
    """A download that calls `send` to produce its content."""

    def __init__(self, send=lambda download: None, writer=None, url="test://stub"):
        super().__init__(url, writer)
        self.send = send

    def _send(self):
        self.send(self)


class Blocking(Stub):
    """A download that runs until it is cancelled or released."""

    def __init__(self, writer=None):
        super().__init__(self._block, writer, "test://blocking")
        self.running = threading.Event()
        self.released = threading.Event()

    def _block(self, _):
        self.running.set()
        while not self.released.wait(0.001):
            self._write(b"x")


class Held(Stub):
    """A download that ignores cancellation and ends only when it is released."""

    def __init__(self):
        super().__init__(self._hold)
        self.running = threading.Event()
        self.released = threading.Event()

    def _hold(self, _):
        self.running.set()
        assert self.released.wait(SECONDS)
