"""The downloads of a batch that wait for a worker process."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from ..engine.spec import Spec
from .window import Plan

Item = tuple[Plan[Any], Spec]


class Pending:
    """The items that wait, grouped by the host of their URL.

    Attributes:
        count (int): The number of items.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.count = 0
        self._hosts: dict[str, deque[Item]] = {}
        self._since = 0.0

    @property
    def waited(self) -> float:
        """How long items have waited, since there was none (seconds)."""
        return time.monotonic() - self._since

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
        """Remove and return items for a chunk, of as few hosts as possible.

        Args:
            most: The most items.
        """
        found: list[Item] = []
        while self._hosts and len(found) < most:
            host = next(iter(self._hosts))
            items = self._hosts.pop(host)
            while items and len(found) < most:
                found.append(items.popleft())
            if items:
                # Move this host to the end, so that the others get their turn.
                self._hosts[host] = items
        self.count -= len(found)
        return found
