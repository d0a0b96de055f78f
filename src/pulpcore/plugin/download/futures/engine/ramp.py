"""How many connections fetch one file: more, as long as the sum of their speeds grows.

The policy does no I/O and takes the time from outside, so that tests can simulate it. It measures
the sum of the speeds over short periods, and then tries more connections. If the sum grows by about
a tenth, they stay, and it tries still more. If not, it goes back, and tries again after a pause,
which doubles each time.
"""

from __future__ import annotations

import math
from typing import NamedTuple

PERIOD = 0.2
"""How long a speed is measured at least (seconds)."""

TRIPS = 4
"""How many round trips a speed is measured at least."""

LEAST, LONGEST = 32 * 1024, 1.0
"""A speed is measured until so many bytes have come, but not longer (bytes, seconds)."""

WINDOW = 14_600
"""What a new connection sends in its first round trip (bytes; RFC 6928). Then it doubles."""

STEADY = 1.05
"""A speed that grew by no more than this factor since the period before doesn't grow any more."""

PATIENCE = 8
"""The most periods until a speed counts, although it still grows."""

GAIN = 0.1
"""The share by which the sum must grow, so that more connections stay."""

LOSS = 0.9
"""Several connections are given up if they bring less than this share of what one has brought."""

HUNGER = 0.25
"""The least share of the time that the reader waits for the network.

If it waits less, something else is the limit, such as the processor, the disk, or a limit of
bandwidth.
"""

PAUSE, LONGEST_PAUSE = 2.0, 60.0
"""How long to wait after a trial that brought nothing: at first, and at most (seconds)."""

REST = 60.0
"""How long to wait after a server refused a connection (seconds)."""


class Progress(NamedTuple):
    """What was counted since the beginning.

    Attributes:
        received (int): The bytes that all connections have brought.
        waited (float): How long the reader has waited for them, without computing (seconds).
    """

    received: int = 0
    waited: float = 0.0


class Ramp:
    """The number of connections for one file, as it is learned.

    Attributes:
        most (int): The largest number.
        wanted (int): The number to use now.
        speed (float): The last sum of the speeds that was measured (bytes a second).
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
        # When new connections can have their full speed.
        self._grown = now
        # How many connections a trial began with, and their speed; None while there is no trial.
        self._before: tuple[int, float] | None = None
        # Whether all connections that are wanted have brought something.
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
        """Measure, and decide at the end of a period.

        Args:
            now: The time (seconds).
            progress: What was counted.
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
        # New connections had their full speed for most of the period.
        is_grown = self._began + elapsed / 4 >= self._grown
        self._begin(now, progress)
        self._decide(now, speed, is_hungry=waited >= HUNGER * elapsed, is_grown=is_grown)

    def refuse(self, now: float, active: int) -> None:
        """Use no more connections than there are, because one could not be had.

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
            # The next step is larger, so that many connections are soon found.
            self._before, self._step = None, self.wanted
            self._try(speed)
        elif is_grown or not is_hungry:
            self._reject(now)

    def _try(self, speed: float) -> None:
        """Use more connections, if there may be more."""
        self._restart()
        wanted = min(self.wanted + self._step, self.most)
        if self.wanted == 1:
            # Alone, a connection goes on without a pause between the parts. So it takes more than
            # two to be faster if a part comes within a round trip.
            share = 1 + speed * self._trip / self._size
            wanted = max(wanted, math.ceil(share * (1 + GAIN)))
        if self.wanted < wanted <= self.most:
            self._before = self.wanted, speed
            self.wanted = wanted
            self._is_complete = False

    def _doublings(self) -> float:
        """How many round trips a new connection needs to be as fast as those before."""
        count, before = self._before or (1, 0.0)
        return math.log2(max(before / count * self._trip / WINDOW, 1.0)) + TRIPS

    def _reject(self, now: float) -> None:
        """Go back to the connections before the trial, if there is one, and pause."""
        if self._before is not None:
            self.wanted, self._before = self._before[0], None
        self._is_complete, self._step = True, 1
        self._next = now + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        self._restart()

    def _restart(self) -> None:
        self._periods, self._last = 0, 0.0
