"""Giving up what is too slow."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from ..waiting.cancellation import Cancellation, scope
from ..waiting.timer import Alarm, timer


class Pace:
    """Stops what is done within the ``with`` if it gets on too slowly.

    Attributes:
        reason (str | None): Why it was stopped; None if it wasn't.
    """

    def __init__(
        self, parent: Cancellation, least: float, window: float, received: Callable[[], int | None]
    ) -> None:
        """Make one.

        Args:
            parent: What stops it too.
            least: The least bytes a second.
            window: Over how many seconds.
            received: Tells how many bytes have come so far; None if that isn't to be looked at.
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
        """Why it was stopped; None if it wasn't."""
        return None if self._parent.reason is not None else self._token.reason

    def __enter__(self) -> Self:
        self._scope.__enter__()
        self._alarm = timer.set(self._window, self._look)
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

    def _look(self) -> None:
        received = self._received()
        if received is not None and received - self._before < self._least * self._window:
            self._token.cancel(
                f"it was slower than {self._least:g} bytes a second for {self._window:g} s"
            )
        else:
            self._before = self._before if received is None else received
            self._alarm = timer.set(self._window, self._look)
            if self._is_done:
                # Meanwhile, and with the alarm before.
                timer.cancel(self._alarm)
