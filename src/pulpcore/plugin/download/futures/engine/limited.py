"""Applies ``Limits`` (see the settings) to the runs of downloads."""

from __future__ import annotations

import functools
import time
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from ..error import DownloadFailed
from ..settings import Limits
from ..waiting.lock import Process
from .attempt import Attempt, record_of
from .bucket import Bucket, piece
from .places import Places, enter_all
from .run import Wait

if TYPE_CHECKING:
    from .protocol import Protocol
    from .run import Run
    from .subject import Download

_BUFFER = 1 / 16
"""The size of a receive buffer (seconds of the bandwidth).

The server fills the buffer of each connection before it feels the limit. A smaller buffer would
slow down a single connection with a long round trip.
"""

_LEAST, _MOST = 16 * 1024, 208 * 1024
"""The smallest receive buffer, and the largest one that Linux grants by default (bytes).

Above that the system's own choice is better, because the kernel tunes it to the connection.
"""

_LONG = 1.0
"""The shortest wait for bandwidth that is shown with the progress (seconds)."""


class Shared:
    """The state of a ``Limits`` object.

    Attributes:
        bucket (Bucket): The token bucket for its bandwidth.
        flights (dict): The plans in flight, in the order of their arrival, each with the gate of
            its batch. A plan is in flight until it is handed back to the consumer.
    """

    def __init__(self) -> None:
        """Create the state of unused limits."""
        self.bucket = Bucket()
        self.flights: dict[Any, Any] = {}
        self._places: dict[Hashable, Places] = {}

    @classmethod
    def of(cls, limits: Limits) -> Shared:
        """Return the state of limits in this process.

        Args:
            limits: The limits.
        """
        # By process: a forked child counts its own connections, not those of its parent.
        found: Shared = limits.shared.setdefault(Process.current, cls())
        return found

    def places(self, host: Hashable) -> Places:
        """Return the places at a host.

        Args:
            host: The host.
        """
        return self._places.get(host) or self._places.setdefault(host, Places())


def limits_of(download: Download) -> tuple[Limits, ...]:
    """Return the limits that apply to a download: its own, and those of its batch.

    Args:
        download: The download.
    """
    both = download.limits, record_of(download).limits
    # Without duplicates: a batch and its downloads may have the same object.
    return tuple({id(limits): limits for limits in both if limits is not None}.values())


class Ration:
    """The limits of a download, applied to the connections to one host."""

    def __init__(self, limits: tuple[Limits, ...], host: Hashable) -> None:
        """Create it for the limits of a download.

        Args:
            limits: The limits.
            host: The host: what :meth:`Protocol.host` returns.
        """
        self._limits, self._host = limits, host

    def receive_buffer(self) -> int | None:
        """Return the size of the receive buffer (``SO_RCVBUF``) of a connection.

        Returns:
            The size (bytes); None for the system's choice.
        """
        rates = [each.bandwidth for each in self._limits if each.bandwidth is not None]
        size = int(min(rates) * _BUFFER) if rates else _MOST + 1
        return None if size > _MOST else max(size, _LEAST)

    def places(self) -> list[tuple[Places, int]]:
        """Return the places at the host by each limit, with their number (``per_host``)."""
        return [
            (Shared.of(each).places(self._host), each.per_host)
            for each in self._limits
            if each.per_host is not None
        ]

    def make_room(self) -> None:
        """Close idle connections until another one may be opened."""
        for places, most in self.places():
            places.make_room(most)

    def add_idle(self, connection: object, ticket: list[Any]) -> None:
        """Note that a connection is idle.

        Args:
            connection: The connection.
            ticket: A list with the connection. The thread that uses it next pops it from there.
        """
        for places, _ in self.places():
            places.add_idle(connection, ticket)


class RunLimits:
    """The limits of one run, and the places at hosts that the run has taken.

    Attributes:
        limits (tuple[Limits, ...]): The limits.
    """

    def __init__(self, run: Run, download: Download) -> None:
        """Start without any place.

        Args:
            run: The run.
            download: The download.
        """
        self.limits = limits_of(download)
        self._run = run
        self._places: dict[Places, None] = {}
        # The hosts to which a host has redirected.
        self._beyond: dict[Hashable, dict[Hashable, None]] = {}
        self._home: Hashable = None
        # The places of the run's further connections (parts), by their keys.
        self._further: dict[object, list[Places]] = {}

    def enter(self, host: Hashable) -> float | None:
        """Take a place at a host, and at each host to which it has redirected this run.

        Args:
            host: The host; None if the attempt uses none.

        Returns:
            When to ask again (``time.monotonic()``); None if the run has all places that it needs.
        """
        self._home = host
        if host is None:
            return None
        hosts = [host, *self._beyond.get(host, ())]
        wanted = [each for host in hosts for each in Ration(self.limits, host).places()]
        self._places.update(dict.fromkeys(places for places, _ in wanted))
        return enter_all(self._run, wanted)

    def follow(self, host: Hashable) -> bool:
        """Take a place at a host to which the server redirects, without waiting.

        Args:
            host: The host.

        Returns:
            Whether there was one. If not, the next :meth:`enter` waits for it.
        """
        if host != self._home:
            self._beyond.setdefault(self._home, {})[host] = None
        return self.enter(self._home) is None

    def leave(self) -> None:
        """Give all places back."""
        for places in self._places:
            places.forget(self._run)

    def take(self, key: object, hosts: Sequence[Hashable]) -> bool:
        """Take a place for a further connection at each of several hosts, if nobody waits for one.

        Args:
            key: What the connection is used for.
            hosts: The hosts.

        Returns:
            Whether there was one at each. If not, none was taken.
        """
        for host in hosts:
            for places, most in Ration(self.limits, host).places():
                # A waiting run has priority: otherwise the parts of one large file would hold all
                # places until its end.
                if places.is_awaited or not places.take(key, self._run, most):
                    self.give_back(key)
                    return False
                self._further.setdefault(key, []).append(places)
        return True

    def give_back(self, key: object) -> None:
        """Give the places of a further connection back.

        Args:
            key: What it was used for.
        """
        for places in self._further.pop(key, ()):
            places.leave(key)

    def delay(self, size: int) -> tuple[int, float]:
        """Reserve bandwidth for the next bytes.

        Args:
            size: The number of bytes that are ready.

        Returns:
            How many of them to hand on next, and how long to wait before that (seconds).
        """
        shared = [
            (Shared.of(each).bucket, each.bandwidth)
            for each in self.limits
            if each.bandwidth is not None
        ]
        size = min([size, *(piece(rate) for _, rate in shared)])
        now = time.monotonic()
        return size, max([0.0, *(bucket.take(size, rate, now) for bucket, rate in shared)])


class LimitedAttempt(Attempt):
    """An attempt of a download that has limits.

    Attributes:
        limits (tuple[Limits, ...]): The limits.
        is_full (bool): Whether it ended because all places at a host that it was redirected to
            were taken.
    """

    def __init__(self, download: Download, run: Run, protocol: Protocol, limits: RunLimits) -> None:
        """Begin an attempt.

        Args:
            download: The download.
            run: The run.
            protocol: The protocol's state for this run.
            limits: The limits of the run.
        """
        super().__init__(download, run, protocol)
        self._limits = limits
        self.limits = limits.limits

    def write(self, buffer: bytes) -> None:
        """Write the next bytes of the content in pieces, each when the bandwidth allows it.

        Args:
            buffer: The bytes.

        Raises:
            DownloadError: They can't be written, or a validation failed.
            Cancelled: The run was cancelled.
        """
        begin = 0
        while begin < len(buffer):
            size, delay = self._limits.delay(len(buffer) - begin)
            if delay >= _LONG:
                wait = Wait("the limit of bandwidth", time.monotonic() + delay)
                record_of(self._download).show(wait)
            if delay:
                self.wait_by(functools.partial(self._run.token.wait, delay))
                record_of(self._download).wait = None
            super().write(buffer[begin : begin + size])
            begin += size

    def take_place(self, key: object, hosts: Sequence[Hashable]) -> bool:
        """Take a place for a further connection, if the limits allow one now.

        Args:
            key: What the connection is used for.
            hosts: The hosts that it needs a place at.
        """
        return self._limits.take(key, hosts)

    def leave_place(self, key: object) -> None:
        """Give the place of a further connection back.

        Args:
            key: What it was used for.
        """
        self._limits.give_back(key)

    def wait_for_turn(self, host: Hashable = None) -> None:
        """Wait until another request may be sent, and take a place if it goes to another host.

        Args:
            host: The host that it is sent to; None for the host of the download.

        Raises:
            DownloadFailed: All places at a host to which the server redirected are taken. The
                engine begins another attempt when one is free.
            Cancelled: The run was cancelled.
        """
        super().wait_for_turn()
        if host is not None and not self._limits.follow(host):
            self.is_full = True
            raise DownloadFailed("all connections to a host that it was redirected to are used")


def take_place(attempt: Attempt, key: object, hosts: Sequence[Hashable]) -> bool:
    """Take a place for a further connection of an attempt, if its limits allow one now.

    Args:
        attempt: The attempt.
        key: What the connection is used for. Pass it to :func:`leave_place` afterwards.
        hosts: The hosts that it needs a place at.
    """
    return not isinstance(attempt, LimitedAttempt) or attempt.take_place(key, hosts)


def leave_place(attempt: Attempt, key: object) -> None:
    """Give the place of a further connection back.

    Args:
        attempt: The attempt.
        key: What the connection was used for.
    """
    if isinstance(attempt, LimitedAttempt):
        attempt.leave_place(key)
