"""Signals: how the program is asked to stop."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asked the program to stop.

    Attributes:
        status (int): The exit status that tells which one: 128 and the signal's number.
    """

    def __init__(self, number: int) -> None:
        """Make one.

        Args:
            number: The number of the signal.
        """
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Have Ctrl-C, SIGTERM and SIGHUP raise :class:`Interrupted` in the main thread, once.

    What comes after the first is ignored: it would hit the clean-up, which is bounded in time.
    """
    before = {number: signal.getsignal(number) for number in STOP}

    def stop(number: int, _: FrameType | None) -> None:
        for other in STOP:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(number)

    for number in STOP:
        # nohup has SIGHUP ignored, and means it. A script's shell does the same to SIGINT for each
        # job in the background, but whoever sends it to such a job wants that to stop.
        if before[number] is not signal.SIG_IGN or number == signal.SIGINT:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
