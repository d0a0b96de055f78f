"""What downloads share: a context with attributes and a cache, both safe for threads."""

from __future__ import annotations

import logging
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable
from datetime import timedelta
from types import TracebackType
from typing import Any

from .waiting.lock import ForkSafeLock

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
        self._items: dict[Hashable, Cache._Item] = {}
        # Guards the items.
        self._lock = ForkSafeLock()

    def put(self, key: Hashable, object: Any) -> None:
        """Put an object into the cache, in the place of what was there under the key.

        Args:
            key: Anything that hashes.
            object: Anything.
        """
        item = self._Item(object)
        with self._lock:
            replaced = self._items.get(key)
            self._items[key] = item
        # Only here: an object that ends may use the cache.
        del replaced

    def setdefault(self, key: Hashable, object: Any) -> Any:
        """Put an object into the cache unless there is one under the key, in one step.

        Args:
            key: Anything that hashes.
            object: Anything.

        Returns:
            The object that is in the cache now.
        """
        item = self._Item(object)
        with self._lock:
            item = self._items.setdefault(key, item)
            item.used = time.monotonic()
            return item.object

    def get(self, key: Hashable) -> Any:
        """Return the object under a key.

        Args:
            key: The key that it was put under.

        Raises:
            LookupError: There is none.
        """
        with self._lock:
            item = self._items.get(key)
            if item is not None:
                item.used = time.monotonic()
                return item.object
        raise LookupError(f"nothing is cached under a key of type {type(key).__name__}")

    def purge(self, key: Hashable) -> Any:
        """Remove the object under a key, and return it.

        Args:
            key: The key that it was put under.

        Raises:
            LookupError: There is none.
        """
        with self._lock:
            item = self._items.pop(key, None)
        if item is None:
            raise LookupError(f"nothing is cached under a key of type {type(key).__name__}")
        return item.object

    def evict(self) -> list[Any]:
        """Drop what nobody asked for within the threshold, and nobody outside holds.

        Returns:
            The objects that were dropped.
        """
        with self._lock:
            latest = time.monotonic() - self.eviction_threshold.total_seconds()
            kept = Counter(id(item.object) for item in self._items.values())
            stale = [
                key
                for key, item in self._items.items()
                # One reference more is that of the call.
                if item.used <= latest and sys.getrefcount(item.object) <= kept[id(item.object)] + 1
            ]
            return [self._items.pop(key).object for key in stale]

    def close(self) -> None:
        """Close the resources that are in the cache, such as connections, and remove them."""
        with self._lock:
            resources = {
                key: item.object
                for key, item in self._items.items()
                if isinstance(item.object, Resource)
            }
            for key in resources:
                del self._items[key]
        for resource in resources.values():
            try:
                resource.close()
            except Exception:
                log.exception("A resource could not be closed")

    def __contains__(self, key: Hashable) -> bool:
        """Whether there is an object under a key."""
        with self._lock:
            return key in self._items

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

    def __enter__(self) -> Context:
        self._lock.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def close(self) -> None:
        """Close the resources that are in the cache, such as connections.

        Whoever made the context ends it (contract section 3): a batch closes a context that it
        made. A closed context can still be used; it begins with no connections.
        """
        self.cache.close()

    def __repr__(self) -> str:
        # Names only: the values may be tokens.
        names = sorted(name for name in self.__dict__ if name not in ("cache", "_lock"))
        return f"<Context {', '.join(names)}>"
