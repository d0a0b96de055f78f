"""Pipelining: what the pool of threads and a protocol agree on, and what is known of a host.

Several requests are sent on one connection before the first of them is answered, which saves a
round trip for each of the others. They are called a train. A protocol says which requests may be
in one, sends them, and decides which replies count. The pool chooses the downloads, and advances
the life of each in turn.

A train never makes a download fail. A reply that doesn't count is forgotten, and its request is
sent again alone, as if there had been no train.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from .tracing import Requests

from ..waiting.cancellation import Cancellation

DEPTH = 8
"""How many requests are sent together, unless the caller says otherwise."""

TRIP = 0.005
"""The least round trip for which trains are worth their work by default (seconds)."""

REST = 1.0
"""How long a host that is too near for trains is not asked about again (seconds)."""

ENDS = 2
"""A host gets no more trains after it ended the connection within so many of them in a row, or
refused requests of theirs."""


class Depth(NamedTuple):
    """How far a batch goes.

    Attributes:
        most (int): The most requests that are sent together.
        trip (float): The round trip must take longer than this (seconds).
    """

    most: int
    trip: float

    @classmethod
    def of(cls, number: int | None) -> Depth | None:
        """Return the depth for the argument of a batch; None for no pipelining.

        Args:
            number: The most requests that are sent together; None for the default.
        """
        if number is None:
            return cls(DEPTH, TRIP)
        return cls(number, -1.0) if number > 1 else None


class Health:
    """Whether a host can deal with trains. Threads share it without a lock.

    A race may cost a train more or less, and nothing else.

    Attributes:
        is_off (bool): The host gets no more trains.
    """

    def __init__(self) -> None:
        """Make the health of a host that has had no train."""
        self.is_off = False
        self._ends = 0
        self._rests_until = float("-inf")

    @property
    def is_resting(self) -> bool:
        """Whether the host was too near a moment ago. So each request needn't find that out."""
        return time.monotonic() < self._rests_until

    def rest(self) -> None:
        """Note that the host is too near for trains, which may change."""
        self._rests_until = time.monotonic() + REST

    def answered(self) -> None:
        """Note a train that the host answered to its end."""
        self._ends = 0

    def ended(self) -> None:
        """Note a train that the host ended or refused, or that a nested download had to end."""
        self._ends += 1
        if self._ends >= ENDS:
            self.is_off = True

    def stop(self) -> None:
        """Send no more trains to the host: it mixes replies up, or answers the first one only."""
        self.is_off = True


class Driver(Protocol):
    """What advances the downloads of a train."""

    def waits_for(self, token: Cancellation) -> bool:
        """Return whether a handler of one of them is running, and work is part of it.

        Args:
            token: The token of the work.
        """


class Request(Protocol):
    """The request of a download that may be in a train.

    Attributes:
        key (Hashable): Only requests with equal keys may be in one train.
        size (int): How much is sent (bytes).
        trace (Requests | None): Traces the requests of the run; None for nothing.
    """

    key: Hashable
    trace: Requests | None

    @property
    def size(self) -> int:
        """How much is sent (bytes)."""

    def open(self, depth: Depth, driver: Driver) -> Line | None:
        """Take an idle connection that has proved itself.

        The line closes when a handler that the driver waits for needs a connection itself. The host
        may allow only one.

        Args:
            depth: How far the batch goes.
            driver: What advances the downloads of the train.

        Returns:
            The connection; None if there is none, or the host is too near for a train.
        """


class Line(Protocol):
    """A connection for one train. Only one thread uses it.

    Attributes:
        depth (int): The most requests that may be sent on it together.
        room (int): The most bytes that may be sent on it together.
    """

    depth: int
    room: int

    @property
    def is_open(self) -> bool:
        """Whether more replies can be read."""

    @property
    def trip(self) -> float:
        """How long the last reply took that had not to wait for another one (seconds)."""

    def send(self, requests: Sequence[Any], /) -> None:
        """Send requests. It doesn't raise; a connection that fails is not open afterwards.

        Args:
            requests: The requests, with equal keys.
        """

    def receive(self) -> Any:
        """Read the next reply, which the running work waits for. It doesn't raise.

        Returns:
            The reply if it counts, for the attempt of that download. Else None: it is to be asked
            for again, alone.
        """

    def close(self) -> None:
        """Give the connection back if each request has its reply; else close it."""
