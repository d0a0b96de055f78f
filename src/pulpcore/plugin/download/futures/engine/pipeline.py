"""Pipelining: the interface between the thread pool and a protocol, and the health of hosts.

A train is several requests that are sent on one connection before the first is answered. It saves a
round trip for each request after the first. The protocol says which requests may be in a train,
sends them, and decides which replies count. The pool chooses the downloads, and executes each of
them when its reply has come.

Pipelining alone never makes a download fail. A reply that doesn't count is discarded, and its
request is sent again alone, as if there had been no train.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from .tracing import Requests

from ..waiting.cancellation import Cancellation

DEPTH = 8
"""The default of the most requests that are sent together."""

TRIP = 0.005
"""By default, hosts with a shorter round trip than this get no trains (seconds)."""

REST = 1.0
"""How long a host that was found too near for trains isn't checked again (seconds)."""

ENDS = 2
"""After this many failed trains in a row, a host gets no more of them.

A train fails if the host closes the connection early or refuses requests.
"""


class Depth(NamedTuple):
    """The limits of pipelining in a batch.

    Attributes:
        most (int): The most requests that are sent together.
        trip (float): Only hosts with a longer round trip than this get trains (seconds).
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
    """How well a host answers trains. Threads share it without a lock.

    The worst effect of a race is one train too many or too few.

    Attributes:
        is_off (bool): The host gets no more trains.
    """

    def __init__(self) -> None:
        """Create the health of a host that has had no train."""
        self.is_off = False
        self._ends = 0
        self._rests_until = float("-inf")

    @property
    def is_resting(self) -> bool:
        """Whether the host was found too near within the last :data:`REST` seconds."""
        return time.monotonic() < self._rests_until

    def rest(self) -> None:
        """Note that the host is too near for trains now."""
        self._rests_until = time.monotonic() + REST

    def answered(self) -> None:
        """Note a train that the host has answered completely."""
        self._ends = 0

    def ended(self) -> None:
        """Note a failed train: ended or refused by the host, or ended for a nested download."""
        self._ends += 1
        if self._ends >= ENDS:
            self.is_off = True

    def stop(self) -> None:
        """Send no more trains: the host mixes up replies, or answers the first request only."""
        self.is_off = True


class Driver(Protocol):
    """Executes the downloads of a train."""

    def waits_for(self, token: Cancellation) -> bool:
        """Return whether some work belongs to a handler that the train's thread is running.

        Args:
            token: The token of the work, such as a nested download.
        """


class Request(Protocol):
    """The request of a download that may be in a train.

    Attributes:
        key (Hashable): Only requests with equal keys may be in one train.
        size (int): The size of the request (bytes).
        trace (Requests | None): Traces the requests of the run; None for no tracing.
    """

    key: Hashable
    trace: Requests | None

    @property
    def size(self) -> int:
        """The size of the request (bytes)."""

    def open(self, depth: Depth, driver: Driver) -> Line | None:
        """Take an idle connection that has answered requests before.

        The line closes if a handler of one of its downloads needs a connection itself, because the
        host may allow only one.

        Args:
            depth: The limits of pipelining in the batch.
            driver: Executes the downloads of the train.

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
        """How long the last reply took that didn't queue behind another one (seconds)."""

    def send(self, requests: Sequence[Any], /) -> None:
        """Send requests. It doesn't raise; a connection that fails is not open afterwards.

        Args:
            requests: The requests, with equal keys.
        """

    def receive(self) -> Any:
        """Read the next reply. It doesn't raise.

        Returns:
            The reply if it counts, for the attempt of that download. Otherwise None: the request
            must be sent again, alone.
        """

    def close(self) -> None:
        """Give the connection back if each request has its reply; else close it."""
