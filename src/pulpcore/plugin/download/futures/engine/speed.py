"""The least speed: cancels an attempt that is too slow (``timeout.least_speed``)."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from ..error import transient
from ..waiting.cancellation import Cancellation, scope
from ..waiting.timer import Alarm, timer


class Pace:
    """A context manager that cancels its block if fewer bytes arrive than the least speed demands.

    Attributes:
        reason (str | None): Why the block was cancelled; None if it wasn't, or if the parent was
            cancelled.
    """

    def __init__(
        self, parent: Cancellation, least: float, window: float, received: Callable[[], int | None]
    ) -> None:
        """Set the limits. The measurement begins with the ``with`` block.

        Args:
            parent: The cancellation token of the run. It cancels the block, too.
            least: The minimum speed (bytes a second).
            window: The period over which the speed is averaged (seconds).
            received: Returns the number of bytes received so far, or None while the speed must not
                be measured.
        """
        self._token = Cancellation(parent)
        self._scope = scope(self._token)
        self._least = least
        self._window = window
        self._received = received
        self._before = received() or 0
        self._parent = parent
        self._alarm: Alarm
        self._is_done = False

    @property
    def reason(self) -> str | None:
        """Why the speed limit cancelled the block; None if it didn't."""
        return None if self._parent.reason is not None else self._token.reason

    def __enter__(self) -> Self:
        self._scope.__enter__()
        self._alarm = timer.set(self._window, self._check)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_done = True
        timer.cancel(self._alarm)
        self._scope.__exit__(None, None, None)
        self._token.close()

    def _check(self) -> None:
        received = self._received()
        if received is not None and received - self._before < self._least * self._window:
            self._token.cancel(
                f"it was slower than {self._least:g} bytes a second for {self._window:g} s"
            )
        else:
            self._before = self._before if received is None else received
            self._alarm = timer.set(self._window, self._check)
            if self._is_done:
                # __exit__() ran at the same time, and cancelled only the previous alarm.
                timer.cancel(self._alarm)


def send_at_pace(
    send: Callable[[], object],
    token: Cancellation,
    least: float,
    window: float,
    received: Callable[[], int | None],
) -> None:
    """Have a protocol send, and end the attempt, but not the run, if it is too slow.

    Args:
        send: What sends.
        token: The cancellation token of the run.
        least: The minimum speed (bytes a second).
        window: The period over which the speed is averaged (seconds).
        received: Returns the number of bytes received so far, or None while the speed must not be
            measured.

    Raises:
        DownloadFailed: It was too slow.
        Exception: What ``send`` raised.
    """
    with Pace(token, least, window, received) as pace:
        try:
            send()
        except Exception as error:
            if pace.reason is None or token.reason is not None:
                raise
            raise transient(pace.reason) from error
        token.check()
        if pace.reason is not None:
            raise transient(pace.reason)
