"""The attempts at a host, and how many of them the host seems to admit at once.

Some servers allow fewer connections than there are threads, and refuse surplus ones. If a server
refuses an attempt while others run, that isn't a failure: the attempt is repeated when one of them
has ended, and for a while fewer attempts run at once.

An interrupt may come between any two bytecodes, so there is no counter and no lock. Runs are listed
instead, and a run counts while its claims are alive.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import NamedTuple

from ..context import Context
from ..waiting.lock import Process
from .breaker import Breaker
from .pipeline import Health
from .run import Run

MEMORY = 60.0
"""Seconds after the last refusal until the host is believed to admit any number again."""

PAUSE = 0.1
"""Seconds that an attempt waits at least after it was refused."""

LAG = 0.2
"""Seconds that a server may take to notice that a connection has ended."""

# Runs that wait for a place poll for it. The first _FIRST do so every _SOONEST seconds, or more
# slowly if no attempt has ended for a while. The others share _LOOKS polls a second.
_FIRST = 8
_SOONEST, _LATEST = 0.02, 2.0
_LOOKS = 200


class _Limit(NamedTuple):
    """The number of attempts that a host admits.

    Attributes:
        most (int): How many attempts at once.
        since (float): When it last refused an attempt (``time.monotonic()``).
    """

    most: int
    since: float


class Host:
    """The state of one host, which all downloads with a context share.

    Attributes:
        breaker (Breaker): Its circuit breaker.
        health (Health): How it handles pipelining.
    """

    def __init__(self) -> None:
        """Create the state of an unknown host."""
        self.breaker = Breaker()
        self.health = Health()
        self._process = Process.current
        self._active: dict[Run, None] = {}
        # Both in the order of arrival. Refused runs come first, because they had a place already.
        # The value is False while a refused run pauses to let the server recover; it doesn't poll
        # then.
        self._refused: dict[Run, bool] = {}
        self._waiting: dict[Run, bool] = {}
        self._limit: _Limit | None = None
        # When an attempt last ended successfully.
        self._left = 0.0

    def enter(self, run: Run) -> float | None:
        """Let an attempt begin if the host has a free place.

        Args:
            run: The run that makes it.

        Returns:
            When to ask again (``time.monotonic()``); None if the attempt may begin.
        """
        if (self._limit is not None or self._waiting) and (until := self._wait(run)) is not None:
            return until
        if self._refused:
            self._refused.pop(run, None)
        self._active[run] = None
        return None

    def leave(self, run: Run) -> None:
        """Note that an attempt has succeeded.

        Args:
            run: The run that made it.
        """
        self._active.pop(run, None)
        run.left = self._left = time.monotonic()
        if self._limit is not None:
            self._wake()

    def forget(self, run: Run) -> None:
        """Remove a run's attempt, and its wait for a place.

        Args:
            run: The run.
        """
        was_active = run in self._active
        for runs in self._active, self._refused, self._waiting:
            runs.pop(run, None)
        if was_active and self._limit is not None:
            self._wake()

    def is_crowded(self, run: Run, began: float) -> bool:
        """Return whether an attempt was refused because of others. If so, admit fewer.

        Args:
            run: The run whose attempt was refused.
            began: When the attempt began (``time.monotonic()``).

        Returns:
            True if another attempt is running, or has succeeded so shortly before that the server
            may not have noticed its end. The latter explains only one refusal of a run. False if
            the run was lately refused although it was alone.
        """
        now, others, ended = time.monotonic(), self._others(run), self._left
        is_late = ended != run.left and ended >= began - LAG and not run.was_late
        if not others and not is_late:
            # The server refuses even a single connection, so a limit would not help. It would only
            # slow down the host's other files.
            run.refused_alone = now
            self._limit = None
            return False
        run.was_late = not others
        if now - run.refused_alone < MEMORY:
            return False
        limit, most = self._limit, max(others, 1)
        self._limit = _Limit(most if limit is None else min(most, limit.most), now)
        self._refused[run] = False
        return True

    def _wake(self) -> None:
        """Wake the run that has waited longest for a place."""
        for run, is_ready in [*self._refused.copy().items(), *self._waiting.copy().items()]:
            if is_ready:
                run.token.nudge()
                return

    def _wait(self, run: Run) -> float | None:
        """Return when to ask again for a place; None if one is free."""
        now, limit, waiting = time.monotonic(), self._limit, self._waiting
        if limit is not None and now - limit.since >= MEMORY:
            limit = self._limit = None
        if limit is None or self.breaker.is_open:
            # The open circuit breaker keeps nearly all runs away already.
            waiting.pop(run, None)
            return None
        # A new run must not overtake a waiting one.
        is_behind = False
        if run not in waiting and run not in self._refused:
            is_behind = bool(waiting or self._refused)
            waiting[run] = True
        if not is_behind and self._others(run) < limit.most:
            waiting.pop(run, None)
            return None
        if run in self._refused:
            self._refused[run] = True
        first = [*self._refused.copy(), *list(waiting)[:_FIRST]][:_FIRST]
        for each in first:
            if not each.claims.is_live:
                self._refused.pop(each, None)
                waiting.pop(each, None)
        soon = min(max((now - max(limit.since, self._left)) / 8, _SOONEST), _LATEST)
        return now + (soon if run in first else min(max(soon, len(waiting) / _LOOKS), _LATEST))

    def _others(self, run: Run) -> int:
        """Count the attempts of other runs, except those that wait for this run to end.

        The attempts of a train use one connection, and count as one.
        """
        if self._process is not Process.current:
            # In a forked child, the attempts of the parent never end.
            self._process = Process.current
            for runs in self._active, self._refused, self._waiting:
                runs.clear()
        others, trains = 0, set()
        for other in self._active.copy():
            if not other.claims.is_live:
                self._active.pop(other, None)
            elif (train := other.train) is not None:
                trains.add(train)
            elif other is not run and not run.token.within(other.token):
                others += 1
        return others + sum(not train.waits_for(run.token) for train in trains)


def host_of(context: Context, key: Hashable) -> Host:
    """Return the state of a host, which all downloads with a context share.

    Args:
        context: The context.
        key: What :meth:`.protocol.Protocol.host` returns.
    """
    return context.cache.once(("host", key), Host)
