"""Signals that stop the program."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asked the program to stop.

    Attributes:
        status (int): The exit status: 128 and the signal's number.
    """

    def __init__(self, number: int) -> None:
        """Remember the signal.

        Args:
            number: The number of the signal.
        """
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Make Ctrl-C, SIGTERM and SIGHUP raise :class:`Interrupted` in the main thread, once.

    Later signals are ignored: they would interrupt the clean-up, which is bounded in time.
    """
    before = {number: signal.getsignal(number) for number in STOP}

    def stop(number: int, _: FrameType | None) -> None:
        for other in STOP:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(number)

    for number in STOP:
        # nohup ignores SIGHUP on purpose, so it stays ignored. A shell script ignores SIGINT for
        # its background jobs, but whoever sends SIGINT to such a job wants to stop it.
        if before[number] is not signal.SIG_IGN or number == signal.SIGINT:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
