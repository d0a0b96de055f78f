"""Handles the signals that stop the program."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal stopped the program.

    Attributes:
        status (int): The exit status: 128 plus the number of the signal.
    """

    def __init__(self, number: int) -> None:
        """Create the exception for a signal.

        Args:
            number: The number of the signal.
        """
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Within the ``with``, raise :class:`Interrupted` in the main thread at the first signal.

    The signals are SIGINT (Ctrl-C), SIGTERM and SIGHUP. Later ones are ignored, so that they don't
    interrupt the clean-up, whose duration is bounded.
    """
    before = {number: signal.getsignal(number) for number in STOP}

    def stop(number: int, _: FrameType | None) -> None:
        for other in STOP:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(number)

    for number in STOP:
        # nohup ignores SIGHUP on purpose, so leave it ignored. Shells ignore SIGINT in background
        # jobs of a script; but somebody who sends it to such a job wants to stop it.
        if before[number] is not signal.SIG_IGN or number == signal.SIGINT:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
