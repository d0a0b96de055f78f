"""Holds back downloads of a batch while too many bytes are in flight (``Limits.in_flight``).

The bytes of a download are in flight from its beginning until its plan is handed back. A download
that must wait is parked, and occupies no thread. When a plan ends or is handed back, a worker
thread checks the parked ones again.

The consumer's thread only removes plans and wakes workers, so KeyboardInterrupt loses nothing
there. A plan first adds itself to the list of all plans, and then counts the bytes of those before
it. So two plans that begin at the same time never both take the last bytes.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ..engine.attempt import record_of
from ..engine.limited import Shared, limits_of
from ..engine.run import Wait
from ..settings import Limits
from ..waiting.cancellation import Cancellation
from ..waiting.threads import Workers
from .window import Plan

_HELD = Wait("the limit of bytes in flight", math.inf)


class _Parked(NamedTuple):
    """A plan that waits, its limits, and the function that begins it."""

    plan: Plan[Any]
    limits: list[Limits]
    begin: Callable[[], object]


class Gate:
    """Admits the plans of one batch."""

    def __init__(self, workers: Workers, cancellation: Cancellation) -> None:
        """Create a gate.

        Args:
            workers: The threads of the batch.
            cancellation: The token of the batch. When it is cancelled, all plans may begin.
        """
        self._workers = workers
        self._cancellation = cancellation
        self._parked: deque[_Parked] = deque()

    def admit(self, plan: Plan[Any], begin: Callable[[], object]) -> bool:
        """Admit a plan, or park it. Worker threads call this.

        Args:
            plan: The plan.
            begin: If the plan is parked, a worker thread calls this when it may begin.

        Returns:
            Whether it may begin now.
        """
        # Invalid limits are skipped here: the run checks the settings, and fails.
        limits = [
            each
            for each in limits_of(plan.download)
            if isinstance(each, Limits) and isinstance(each.in_flight, int)
        ]
        if not limits:
            return True
        plan.hand_back = partial(self._hand_back, plan, limits)
        if not self._parked and self._enter(plan, limits):
            return True
        # Show this before parking: once parked, another thread may begin the plan and clear it.
        record_of(plan.download).show(_HELD)
        self._parked.append(_Parked(plan, limits, begin))
        # If the token was cancelled already, attach() wakes this gate at once.
        self._cancellation.attach(self)
        self._admit_parked()
        return False

    def _hand_back(self, plan: Plan[Any], limits: list[Limits]) -> None:
        """Note that a plan was handed back to the consumer. A second call does no harm."""
        for each in limits:
            Shared.of(each).flights.pop(plan, None)
        self.wake()

    def wake(self) -> None:
        """Have a worker thread check whether a parked plan may begin."""
        if self._parked:
            with contextlib.suppress(RuntimeError):
                self._workers.run(self._admit_parked)

    def _admit_parked(self) -> None:
        while True:
            try:
                parked = self._parked.popleft()
            except IndexError:
                return
            if self._enter(parked.plan, parked.limits):
                record_of(parked.plan.download).wait = None
                # The next one may fit, too. Another thread checks, because this one runs the plan.
                self.wake()
                parked.begin()
                return
            self._parked.appendleft(parked)
            # While the plan was out of the queue, wake() could not see it. So check once more.
            if not self._fits(parked.plan, parked.limits):
                return

    def _enter(self, plan: Plan[Any], limits: list[Limits]) -> bool:
        for each in limits:
            Shared.of(each).flights[plan] = self
        if self._fits(plan, limits):
            return True
        for each in limits:
            Shared.of(each).flights.pop(plan, None)
        return False

    def _fits(self, plan: Plan[Any], limits: list[Limits]) -> bool:
        return self.is_ended or all(self._fits_in(plan, each) for each in limits)

    def _fits_in(self, plan: Plan[Any], limits: Limits) -> bool:
        flights, most = Shared.of(limits).flights, limits.in_flight
        before, is_first = 0, True
        for other, gate in flights.copy().items():
            if other is plan:
                break
            if gate.is_ended:
                flights.pop(other, None)
                continue
            before += _size(other)
            is_first = is_first and gate is not self
        # Each batch may always have one plan in flight. Otherwise a consumer that runs an inner
        # batch for each plan of an outer one would deadlock.
        return is_first or most is None or (before < most and before + _size(plan) <= most)

    @property
    def is_ended(self) -> bool:
        """Whether the batch was cancelled. Then its plans count no more."""
        return self._cancellation.is_cancelled()


def _size(plan: Plan[Any]) -> int:
    """Return how many bytes of a plan are in flight: the expected size, or what has come."""
    if plan.error is not None:
        return 0
    received = record_of(plan.download).content.received
    expected: int | None = plan.download.expected_size
    if expected is None or plan.has_ended:
        return received
    return max(received, expected)
