"""What belongs to one run of a download, and not to the next."""

from __future__ import annotations

import functools
import time

from ..waiting.cancellation import Cancellation
from ..waiting.timer import Alarm, timer
from .backoff import Budget
from .breaker import Health


class Run:
    """One run of a download.

    Attributes:
        token (Cancellation): What stops it.
        budget (Budget): How often it is tried again.
        began (float): When it began (``time.monotonic()``).
        attempt (int): The number of the attempt, from 1.
        repairs (int): How often handlers have repaired.
        announced (bool): Sent and Replied were sent in this attempt.
        is_begun (bool): The attempt got as far as to send.
        is_waiting (bool): It waits for its turn to send, which is no fault of the server's.
        has_waited (bool): It has waited so since its progress was last asked for.
        is_done (bool): The run has succeeded.
        resume (bool): The last attempt failed in a way that leaves what was fetched good.
        torn (bool): Writer and validations may not have seen the same bytes.
        total (int | None): The size of the content (bytes), where the server has said it.
        received (int): All bytes that came, those included that had to be thrown away.
        deadline (float | None): When it must have ended (``time.monotonic()``).
        health (Health | None): That of the host, in this attempt.
        over (str): What is said when it hasn't.
        alarm (Alarm | None): What ends the run when it takes too long.
    """

    __slots__ = (
        "alarm",
        "announced",
        "attempt",
        "began",
        "budget",
        "deadline",
        "has_waited",
        "health",
        "is_begun",
        "is_done",
        "is_waiting",
        "over",
        "received",
        "repairs",
        "resume",
        "token",
        "torn",
        "total",
    )

    def __init__(self, parent: Cancellation | None, budget: Budget | None = None) -> None:
        self.token = Cancellation(parent)
        self.budget = budget or Budget(None, 0)
        self.began = time.monotonic()
        self.attempt = 0
        self.repairs = 0
        self.announced = False
        self.is_begun = False
        self.is_done = False
        self.is_waiting = self.has_waited = False
        # The last attempt failed in a way that leaves what was fetched good.
        self.resume = False
        # Writer and validations may not have seen the same bytes.
        self.torn = False
        self.total: int | None = None
        # All bytes that came, those included that had to be thrown away.
        self.received = 0
        self.deadline: float | None = None
        self.over = ""
        self.alarm: Alarm | None = None
        self.health: Health | None = None

    def progress(self) -> int | None:
        """All bytes that came so far; None if it was we who waited since the last call."""
        waited, self.has_waited = self.has_waited, self.is_waiting
        return None if waited else self.received

    def time_left(self) -> float | None:
        """The seconds that are left of the limit; None without one."""
        if self.deadline is None:
            return None
        # A time-out of 0 would mean something else to a socket.
        return max(self.deadline - time.monotonic(), 0.001)

    def limit(self, seconds: float) -> None:
        """Stop the run when it has taken so long."""
        self.over = f"it was not done within the total limit of {seconds:g} s"
        self.deadline = self.began + seconds
        left = self.deadline - time.monotonic()
        self.alarm = timer.set(left, functools.partial(self.token.cancel, self.over))

    def expire(self) -> None:
        """Stop the run if its time is over.

        A connection is given no more time than there is left: its time-out and the alarm come at
        one moment, and it must not matter which is first.
        """
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.token.cancel(self.over)

    def close(self) -> None:
        """Listen to nothing any more."""
        self.token.close()
        if self.alarm is not None:
            timer.cancel(self.alarm)
