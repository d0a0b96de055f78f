"""The policy that decides how many connections fetch one file.

It measures the total throughput over short periods, and then starts a trial with more connections.
If the throughput grows by about a tenth, the connections stay, and the next trial has still more.
If not, it returns to the former number, and pauses before the next trial. The pause doubles each
time.

The policy does no I/O, and its caller passes the time, so that tests can simulate it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

PERIOD = 0.2
"""The shortest period of a measurement (seconds)."""

TRIPS = 4
"""The shortest period of a measurement (round trips). The longer of the two limits holds."""

LEAST, LONGEST = 32 * 1024, 1.0
"""A measurement needs at least ``LEAST`` bytes, unless it has taken ``LONGEST`` seconds."""

WINDOW = 14_600
"""TCP's initial window (bytes; RFC 6928). In slow start it doubles with each round trip."""

STEADY = 1.05
"""The speed is steady if it grew by no more than this factor since the period before."""

PATIENCE = 8
"""After this many periods a trial may start although the speed still grows."""

GAIN = 0.1
"""The share by which a trial must raise the total speed for its connections to stay."""

LOSS = 0.9
"""Go back to one connection if several bring less than this share of the speed of one."""

HUNGER = 0.25
"""More connections are tried only if the reader waits for the network at least this share of time.

If it waits less, the bottleneck is something else, such as the CPU, the disk, or a limit of
bandwidth.
"""

PAUSE, LONGEST_PAUSE = 2.0, 60.0
"""The pause after a trial that failed: the first one, and the longest one (seconds)."""

REST = 60.0
"""How long to wait after a server refused a connection (seconds)."""


class Progress(NamedTuple):
    """Counters since the beginning. The policy uses only their differences.

    Attributes:
        received (int): The bytes that all connections have brought.
        waited (float): How long the reader has waited for the network, without its own CPU time
            (seconds).
    """

    received: int = 0
    waited: float = 0.0


class Ramp:
    """The number of connections for one file, adapted to the measured speed.

    Attributes:
        most (int): The largest number.
        wanted (int): The number to use now.
        speed (float): The total speed that was measured last (bytes a second).
    """

    def __init__(self, most: int, now: float, trip: float, size: int) -> None:
        """Begin with one connection.

        Args:
            most: The largest number.
            now: The time, from any clock (seconds).
            trip: How long a connection waits before each part: a round trip, or longer (seconds).
            size: The size of a part (bytes).
        """
        self._size = size
        self.most = most
        self.wanted = 1
        self.speed = 0.0
        self._trip = trip
        self._period = max(PERIOD, TRIPS * trip)
        # When the new connections should have left TCP slow start.
        self._grown = now
        # The number of connections before the trial, and their speed; None if there is no trial.
        self._before: tuple[int, float] | None = None
        # Whether all connections of the trial have brought bytes. Nothing is measured before.
        self._is_complete = True
        self._step = 1
        # The speed of one connection, when it was measured last.
        self._alone = 0.0
        self._pause = PAUSE
        # When to try more connections, and when the server may be asked for more again.
        self._next = self._rest = now
        self._began, self._at_begin = now, Progress()
        self._periods, self._last = 0, 0.0

    def update(self, now: float, progress: Progress, active: int) -> None:
        """Measure the speed, and adapt the number of connections at the end of a period.

        Args:
            now: The time (seconds).
            progress: The counters.
            active: The number of connections that bring bytes now.
        """
        if not self._is_complete:
            if active < self.wanted:
                return
            self._is_complete = True
            self._begin(now, progress)
            self._grown = now + self._trip * self._doublings()
        elapsed = now - self._began
        received = progress.received - self._at_begin.received
        if elapsed < self._period or (received < LEAST and elapsed < LONGEST):
            return
        waited = progress.waited - self._at_begin.waited
        self.speed = speed = received / elapsed
        # Whether the new connections had their full speed for three quarters of the period.
        is_grown = self._began + elapsed / 4 >= self._grown
        self._begin(now, progress)
        self._decide(now, speed, is_hungry=waited >= HUNGER * elapsed, is_grown=is_grown)

    def refuse(self, now: float, active: int) -> None:
        """Keep to the present connections, because the server or the system refused another one.

        Args:
            now: The time (seconds).
            active: The number of connections that bring bytes now.
        """
        self._reject(now)
        self.wanted = max(min(self.wanted, active), 1)
        self._rest = now + REST

    def give_up(self, now: float) -> None:
        """Go back to one connection for a while, because the others are much slower.

        Args:
            now: The time (seconds).
        """
        self._reject(now)
        self.wanted = 1

    def _begin(self, now: float, progress: Progress) -> None:
        self._began, self._at_begin = now, progress

    def _decide(self, now: float, speed: float, is_hungry: bool, is_grown: bool) -> None:
        self._periods += 1
        is_steady = speed <= self._last * STEADY or self._periods >= PATIENCE
        self._last = speed
        if self.wanted == 1:
            self._alone = speed
        elif speed < self._alone * LOSS and is_grown:
            self.give_up(now)
            return
        if self._before is None:
            if is_steady and is_hungry and now >= max(self._next, self._rest):
                self._try(speed)
            return
        count, before = self._before
        # With many connections, one more brings a small share even if it has its full speed.
        gain = min(GAIN, (self.wanted - count) / count / 2)
        if speed >= before * (1 + gain):
            # The number doubles with each success, so that it takes few trials to reach many.
            self._before, self._step = None, self.wanted
            self._try(speed)
        elif is_grown or not is_hungry:
            self._reject(now)

    def _try(self, speed: float) -> None:
        """Start a trial with more connections, if the limit allows it."""
        self._restart()
        wanted = min(self.wanted + self._step, self.most)
        if self.wanted == 1:
            # One connection streams. Connections that fetch parts lose a round trip for each. If
            # that loss is large, even two of them are slower than the stream.
            share = 1 + speed * self._trip / self._size
            wanted = max(wanted, math.ceil(share * (1 + GAIN)))
        if self.wanted < wanted <= self.most:
            self._before = self.wanted, speed
            self.wanted = wanted
            self._is_complete = False

    def _doublings(self) -> float:
        """Return how many round trips a new connection needs until its speed can be measured.

        These are the doublings of slow start up to the mean speed of the former connections, and
        some more.
        """
        count, before = self._before or (1, 0.0)
        return math.log2(max(before / count * self._trip / WINDOW, 1.0)) + TRIPS

    def _reject(self, now: float) -> None:
        """End the trial, if there is one: return to the number before it, and pause."""
        if self._before is not None:
            self.wanted, self._before = self._before[0], None
        self._is_complete, self._step = True, 1
        self._next = now + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        self._restart()

    def _restart(self) -> None:
        self._periods, self._last = 0, 0.0
