"""The places for attempts at one host, of which there are only so many (``Limits.per_host``).

An interrupt may come between any two bytecodes. So nothing here is a counter, and nothing takes a
lock: what counts is the runs that are noted here and still run, which is asked of their claims.

A run first adds itself to the list, and then counts the runs that are before it in the list. So two
runs that do this at the same time never take the same place.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

from .run import Run

# How often those who wait look for a place: the first of them often, and all others together so
# many times a second. Mostly the run that leaves wakes the first one earlier.
_FIRST = 8
_SOONEST, _LATEST = 0.05, 2.0
_LOOKS = 200


class Places:
    """Who uses, and who waits for, the connections to one host."""

    def __init__(self) -> None:
        """Create places that nobody uses."""
        self._active: dict[object, Run] = {}
        self._waiting: dict[Run, None] = {}
        # The idle connections, the one that became idle first in front. Whoever pops the connection
        # from its list owns it.
        self._idle: dict[object, list[Any]] = {}

    def enter(self, run: Run, most: int) -> float | None:
        """Take a place, if one is free and nobody came earlier.

        Args:
            run: The run.
            most: How many places there are.

        Returns:
            When to ask again if there is no place (``time.monotonic()``); None if there is one.
        """
        waiting = self._waiting
        if run in self._active:
            return None
        # A newcomer mustn't take the place of a run that waits, but one that a run with a place
        # waits for needs none of its own.
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
            key: Who takes it: the run, or what it uses a further connection for.
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
                # A run that waits for this one to end doesn't count.
                before += 1
        if before < most:
            return True
        del active[key]
        return False

    def leave(self, key: object) -> None:
        """Give a place back, and wake the run that has waited longest.

        Args:
            key: Who took it. Nothing happens if there is no such.
        """
        if self._active.pop(key, None) is not None:
            for run in self._waiting.copy():
                run.token.nudge()
                break

    def forget(self, run: Run) -> None:
        """Note that a run waits for no place any more, and has none.

        Args:
            run: The run.
        """
        self._waiting.pop(run, None)
        self.leave(run)

    def add_idle(self, key: object, ticket: list[Any]) -> None:
        """Note that a connection is idle.

        Args:
            key: The connection.
            ticket: A list with the connection, from which whoever uses it next pops it.
        """
        for other, each in self._idle.copy().items():
            if not each:
                self._idle.pop(other, None)
        self._idle.pop(key, None)
        self._idle[key] = ticket

    def make_room(self, most: int) -> None:
        """Close idle connections until one more than those that are used may be opened.

        Args:
            most: How many connections there may be.
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
        wanted: The places, and how many of each there are.

    Returns:
        When to ask again (``time.monotonic()``); None if the run has all places.
    """
    for places, most in wanted:
        until = places.enter(run, most)
        if until is not None:
            for other, _ in wanted:
                if other is not places:
                    # Whoever waits holds nothing that another waits for: there is no deadlock.
                    other.leave(run)
            return until
    return None
