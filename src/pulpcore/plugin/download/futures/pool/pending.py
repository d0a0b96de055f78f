"""The downloads of a batch that wait for a worker process."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from ..engine.spec import Spec
from .window import Plan

LINGER = 0.01
"""How long downloads that don't fill the free workers wait for more of them (seconds)."""

Item = tuple[Plan[Any], Spec]


class Pending:
    """Items that wait, by the host of their URL.

    Attributes:
        count (int): Their number.
    """

    def __init__(self) -> None:
        """Start with no items."""
        self.count = 0
        self._hosts: dict[str, deque[Item]] = {}
        self._since = 0.0

    @property
    def is_ripe(self) -> bool:
        """Whether the first of them has waited long enough for others to fill a chunk with."""
        return time.monotonic() - self._since >= LINGER

    def add(self, items: Iterable[Item]) -> None:
        """Add items.

        Args:
            items: The items.
        """
        if not self.count:
            self._since = time.monotonic()
        for item in items:
            self.count += 1
            parts = str(item[0].download.url).split("/", 3)
            host = parts[2] if len(parts) > 2 else ""
            self._hosts.setdefault(host, deque()).append(item)

    def take(self, most: int) -> list[Item]:
        """Remove up to so many, of one host as far as there are enough.

        Args:
            most: How many.
        """
        found: list[Item] = []
        while self._hosts and len(found) < most:
            host = next(iter(self._hosts))
            items = self._hosts.pop(host)
            while items and len(found) < most:
                found.append(items.popleft())
            if items:
                # Put this host last, so that no other host waits for ever.
                self._hosts[host] = items
        self.count -= len(found)
        return found
