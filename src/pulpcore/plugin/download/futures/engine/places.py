"""A semaphore for the connections to one host (``Limits.per_host``), with a queue.

KeyboardInterrupt may be raised between any two bytecodes, so a counter or a lock could be left
wrong. Instead the runs themselves are listed. Only those count whose claims say that they are still
in progress.

A run first adds itself to the list, and then counts the runs before it in the list. So two runs
that do this at the same time never take the same place.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

from .run import Run

# How often waiting runs poll for a place. The first _FIRST do so each _SOONEST seconds, and all
# together about _LOOKS times a second. Usually the run that leaves wakes the first one earlier.
_FIRST = 8
_SOONEST, _LATEST = 0.05, 2.0
_LOOKS = 200


class Places:
    """The runs that use connections to one host, and those that wait for one."""

    def __init__(self) -> None:
        """Create places that are all free."""
        self._active: dict[object, Run] = {}
        self._waiting: dict[Run, None] = {}
        # The idle connections, the longest idle one first. The thread that pops a connection from
        # its list owns it.
        self._idle: dict[object, list[Any]] = {}

    def enter(self, run: Run, most: int) -> float | None:
        """Take a place if one is free and no run has waited longer.

        Args:
            run: The run.
            most: How many places there are.

        Returns:
            When to ask again if there is no place (``time.monotonic()``); None if there is one.
        """
        waiting = self._waiting
        if run in self._active:
            return None
        # A new run must not overtake a waiting one. The exception is a nested run: a run that has a
        # place waits for it, and so lends it that place.
        if (
            not waiting
            or run in waiting
            or any(run.token.within(user.token) for user in self._active.copy().values())
        ) and self.take(run, run, most):
            waiting.pop(run, None)
            return None
        waiting[run] = None
        for each in list(waiting)[:_FIRST]:
            if not each.claims.is_live:
                waiting.pop(each, None)
        is_first = run in list(waiting)[:_FIRST]
        pause = _SOONEST if is_first else max(_SOONEST, len(waiting) / _LOOKS)
        return time.monotonic() + min(pause, _LATEST)

    @property
    def is_awaited(self) -> bool:
        """Whether a run waits for a place."""
        return any(run.claims.is_live for run in self._waiting.copy())

    def take(self, key: object, run: Run, most: int) -> bool:
        """Take a place without waiting for one. Return whether one was free.

        Args:
            key: The owner: the run, or what the run uses a further connection for.
            run: The run.
            most: How many places there are.
        """
        active = self._active
        if key in active:
            return True
        active[key] = run
        before = 0
        for other, user in itertools.takewhile(
            lambda item: item[0] is not key, active.copy().items()
        ):
            if not user.claims.is_live:
                active.pop(other, None)
            elif not run.token.within(user.token) or run is user:
                # A run that waits for this nested one doesn't count: it isn't using its connection.
                before += 1
        if before < most:
            return True
        del active[key]
        return False

    def leave(self, key: object) -> None:
        """Give a place back, and wake the run that has waited longest.

        Args:
            key: The owner. Nothing happens if it has none.
        """
        if self._active.pop(key, None) is not None:
            for run in self._waiting.copy():
                run.token.nudge()
                break

    def forget(self, run: Run) -> None:
        """Remove a run from the queue, and give its place back.

        Args:
            run: The run.
        """
        self._waiting.pop(run, None)
        self.leave(run)

    def add_idle(self, key: object, ticket: list[Any]) -> None:
        """Note that a connection is idle.

        Args:
            key: The connection.
            ticket: A list with the connection. The thread that uses it next pops it from there.
        """
        for other, each in self._idle.copy().items():
            if not each:
                self._idle.pop(other, None)
        self._idle.pop(key, None)
        self._idle[key] = ticket

    def make_room(self, most: int) -> None:
        """Close the longest idle connections until all together are within the limit.

        Args:
            most: The most connections, used and idle.
        """
        excess = len(self._active) + sum(map(len, self._idle.copy().values())) - most
        for key, ticket in self._idle.copy().items():
            if excess <= 0:
                break
            self._idle.pop(key, None)
            try:
                connection = ticket.pop()
            except IndexError:
                continue
            connection.close()
            excess -= 1


def enter_all(run: Run, wanted: Sequence[tuple[Places, int]]) -> float | None:
    """Take a place at each of several hosts, or at none of them.

    Args:
        run: The run.
        wanted: The places of each host, and how many there are.

    Returns:
        When to ask again (``time.monotonic()``); None if the run has all places.
    """
    for places, most in wanted:
        until = places.enter(run, most)
        if until is not None:
            for other, _ in wanted:
                if other is not places:
                    # A waiting run holds no places, so runs can't deadlock.
                    other.leave(run)
            return until
    return None
