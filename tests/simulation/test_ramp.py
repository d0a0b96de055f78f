"""Simulations of how many connections fetch one file, beside the best fixed number of them."""

import math
import random
from collections.abc import Callable
from typing import NamedTuple

import pytest

from pulpcore.plugin.download.futures.engine.ramp import WINDOW, Progress, Ramp

MBIT = 1e6 / 8
PART = 8 * 1024 * 1024
MOST = 16


class Link(NamedTuple):
    """A link, and a server that may cap each connection.

    Attributes:
        capacity: What all connections get together (bytes a second).
        trip: A round trip (seconds).
        cap: What one connection gets at most (bytes a second).
    """

    capacity: float
    trip: float
    cap: float

    def best(self) -> float:
        """Return the best sum of the speeds."""
        return min(self.capacity, self.cap * MOST)


def speed(link: Link, age: float) -> float:
    """Return the speed of a connection: it begins slowly, and doubles it with each round trip.

    Args:
        link: The link.
        age: How long ago it was begun (seconds).
    """
    # It connects and asks.
    age -= 2 * link.trip
    if age < 0:
        return 0.0
    return min(WINDOW / link.trip * 2 ** min(age / link.trip, 60.0), link.cap, link.capacity)


def seconds(link: Link, size: float, wanted: Callable[[float, float, int], int]) -> float:
    """Return how long a file takes.

    Args:
        link: The link.
        size: The size of the file (bytes).
        wanted: Returns the number of connections, given the time, what has come, and how many
            connections bring something.
    """
    chance = random.Random(1)
    now = received = 0.0
    # How many connections were begun at which times.
    begun: list[tuple[float, int]] = []
    step = min(max(link.trip / 2, 0.02), 0.05)
    # How much the first connection still brings before it is replaced by one that fetches parts.
    stream = 0.0
    while received < size:
        speeds = [(speed(link, now - begin), count) for begin, count in begun]
        count = wanted(now, received, sum(count for each, count in speeds if each))
        total = sum(count for _, count in begun)
        if count > total:
            begun.append((now, count - total))
        while count < total:
            begin, number = begun.pop()
            total -= number
            if total < count:
                begun.append((begin, count - total))
                total = count
        # Between two parts, each connection waits for a round trip.
        got = sum(count * PART / (PART / each + link.trip) for each, count in speeds if each)
        first = min(speeds[0][0], link.capacity) if speeds else 0.0
        if count == 1:
            stream = max(PART, first * link.trip * 8)
        if stream > 0:
            stream -= first * step
            got += first - PART / (PART / first + link.trip) if first else 0.0
        received += min(got, link.capacity) * chance.uniform(0.9, 1.1) * step
        now += step
    return now


LINKS = [
    Link(rate * MBIT, trip, rate * MBIT * share)
    for rate in (1, 30, 1000, 10_000)
    for trip in (0.0005, 0.02, 0.1)
    for share in (2.0, 1 / 3, 1 / 16)
]


def adaptive(link: Link, size: float) -> tuple[float, Ramp]:
    """Return how long a file takes with the policy, and the policy at its end."""
    ramp = Ramp(MOST, 0.0, link.trip, PART)

    def wanted(now: float, received: float, active: int) -> int:
        # The reader does nothing but wait for the network.
        ramp.update(now, Progress(int(received), now), active)
        return ramp.wanted

    return seconds(link, size, wanted), ramp


@pytest.mark.parametrize("link", LINKS, ids=str)
def test_beside_the_best(link: Link) -> None:
    """A file of a minute takes at most a tenth longer than with the best fixed number."""
    size = link.best() * 60
    best = min(
        seconds(link, size, lambda *_, count=count: count)  # type: ignore[misc]
        for count in (1, 4, MOST)
    )
    taken, ramp = adaptive(link, size)
    assert taken <= best * 1.1
    # More connections than fill the link are tried in vain, and given up.
    each = min(link.cap, link.capacity)
    enough = math.ceil(link.capacity / (PART / (PART / each + link.trip)))
    assert ramp.wanted <= 4 * enough


@pytest.mark.parametrize("trip", [0.0005, 0.02, 0.1])
def test_never_slower_than_one(trip: float) -> None:
    """Where one connection is best, the trials of more cost less than a tenth."""
    for rate in (1, 10, 100, 1000, 10_000):
        link = Link(rate * MBIT, trip, math.inf)
        for length in (1, 5, 20):
            size = link.capacity * length
            alone = seconds(link, size, lambda *_: 1)
            assert adaptive(link, size)[0] <= alone * 1.1
