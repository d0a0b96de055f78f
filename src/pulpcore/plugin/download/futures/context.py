"""What downloads share: a context with attributes and a cache, both safe for threads."""

from __future__ import annotations

import functools
import itertools
import logging
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable
from datetime import timedelta
from typing import Any, Self

log = logging.getLogger(__name__)


class Resource(ABC):
    """An object in a cache that is closed when its context ends, such as connections."""

    @abstractmethod
    def close(self) -> None:
        """Free what is held. It can be called more than once."""


class Cache:
    """Objects by key, shared by threads.

    Attributes:
        eviction_threshold (timedelta): How long an object stays that nobody asks for.
    """

    class _Item:
        __slots__ = ("object", "used")

        def __init__(self, thing: Any) -> None:
            self.object = thing
            self.used = time.monotonic()

    def __init__(self, eviction_threshold: timedelta = timedelta(hours=4)) -> None:
        """Make an empty cache.

        Args:
            eviction_threshold: How long an object stays that nobody asks for. Zero is zero.
        """
        self.eviction_threshold = eviction_threshold
        # Changed by single steps of a dict only, so that a signal handler may come in between.
        self._items: dict[Hashable, Cache._Item] = {}

    def put(self, key: Hashable, object: Any) -> None:
        """Put an object into the cache, in the place of what was there under the key.

        Args:
            key: Anything that hashes.
            object: Anything.
        """
        self._items[key] = self._Item(object)

    def setdefault(self, key: Hashable, object: Any) -> Any:
        """Put an object into the cache unless there is one under the key, in one step.

        Args:
            key: Anything that hashes.
            object: Anything.

        Returns:
            The object that is in the cache now.
        """
        item = self._items.setdefault(key, self._Item(object))
        item.used = time.monotonic()
        return item.object

    def get(self, key: Hashable) -> Any:
        """Return the object under a key.

        Args:
            key: The key that it was put under.

        Raises:
            LookupError: There is none.
        """
        item = self._items.get(key)
        if item is None:
            raise LookupError(f"nothing is cached under a key of type {type(key).__name__}")
        item.used = time.monotonic()
        return item.object

    def purge(self, key: Hashable) -> Any:
        """Remove the object under a key, and return it.

        Args:
            key: The key that it was put under.

        Raises:
            LookupError: There is none.
        """
        item = self._items.pop(key, None)
        if item is None:
            raise LookupError(f"nothing is cached under a key of type {type(key).__name__}")
        return item.object

    def evict(self) -> list[Any]:
        """Drop what nobody asked for within the threshold, and nobody outside holds.

        Returns:
            The objects that were dropped.
        """
        latest = time.monotonic() - self.eviction_threshold.total_seconds()
        items = list(self._items.items())
        kept = Counter(id(item.object) for _, item in items)
        stale = [
            (key, item)
            for key, item in items
            # One reference more is that of the call.
            if item.used <= latest and sys.getrefcount(item.object) <= kept[id(item.object)] + 1
        ]
        return [item.object for key, item in stale if self._drop(key, item, latest)]

    def close(self) -> None:
        """Close the resources that are in the cache, such as connections, and remove them."""
        for key, item in list(self._items.items()):
            if isinstance(item.object, Resource) and self._items.pop(key, None) is not None:
                try:
                    item.object.close()
                except Exception:
                    log.exception("A resource could not be closed")

    def __contains__(self, key: Hashable) -> bool:
        """Whether there is an object under a key."""
        return key in self._items

    def _drop(self, key: Hashable, item: _Item, latest: float) -> bool:
        """Remove an item, unless it was replaced, or another thread has asked for it meanwhile."""
        if self._items.pop(key, None) is not item:
            return False
        if item.used > latest:
            self._items.setdefault(key, item)
            return False
        return True

    def __repr__(self) -> str:
        # No keys and no objects: they may be credentials.
        return f"<Cache of {len(self._items)}>"


class Context:
    """Attributes that are shared by downloads, and a cache.

    Attributes are set and read like those of ``threading.local``, but all threads see the same
    ones::

        with context:
            if not hasattr(context, 'token'):
                context.token = fetch_token()

    ``with context`` holds the context's lock, which is re-entrant. It is yours: the library itself
    never takes it, so that a download may be run while it is held.

    Attributes:
        cache (Cache): Objects by key, such as sessions.
    """

    cache: Cache

    def __init__(self, **properties: Any) -> None:
        """Make a context.

        Args:
            properties: The first attributes.
        """
        self.__dict__["_lock"] = threading.RLock()
        self.cache = Cache()
        self.__dict__.update(properties)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the context has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value

    # `with` gets what it calls at the beginning and at the end from these, before it calls either.
    # Both are functions of C: in a method written in Python an interrupt would find a place where
    # the lock is held, and nobody gives it back.

    @property
    def __enter__(self) -> Callable[[], Self]:
        # Takes the lock, as the condition under which the context is the next one of the iterator.
        return functools.partial(
            next, itertools.compress(itertools.repeat(self), iter(self._lock.acquire, None))
        )

    @property
    def __exit__(self) -> Callable[..., None]:  # noqa: PLE0302 - it is a property
        return self._lock.__exit__  # type: ignore[no-any-return]

    def close(self) -> None:
        """Close the resources that are in the cache, such as connections.

        Whoever made the context ends it: a batch closes a context that it made. A closed context
        can still be used; it begins with no connections.
        """
        self.cache.close()

    def __repr__(self) -> str:
        # Names only: the values may be tokens.
        names = sorted(name for name in self.__dict__ if name not in ("cache", "_lock"))
        return f"<Context {', '.join(names)}>"
