"""The state that downloads share: a context with attributes and a cache. Both are thread-safe."""

from __future__ import annotations

import functools
import itertools
import logging
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator
from datetime import timedelta
from typing import Any, Self, TypeVar

from .waiting.atomic import HEARING, Waiter
from .waiting.cancellation import current
from .waiting.lock import Process

log = logging.getLogger(__name__)

T = TypeVar("T")


class Resource(ABC):
    """A cached object that the context closes at its end, such as a connection pool."""

    @abstractmethod
    def close(self) -> None:
        """Release the resources. Can be called more than once."""


class _Making:
    """An object that one thread makes while others wait for it."""

    def __init__(self, steps: Iterator[None]) -> None:
        self._steps: Any = steps
        self._is_over = False
        self._waiting: deque[Waiter] = deque()

    def run(self) -> None:
        """Make the object, and wake those who wait."""
        try:
            next(self._steps, None)
        finally:
            self._is_over = True
            while self._waiting:
                self._waiting.pop().wake()

    def wait(self) -> bool:
        """Wait until the object may be there. Return whether nobody makes it any more.

        Raises:
            Cancelled: The work of the caller was cancelled.
        """
        waiter, token = Waiter(), current()
        self._waiting.append(waiter)
        if token is not None:
            token.attach(waiter)
        try:
            # It may have ended before it could see the waiter.
            is_woken = self._is_over or waiter.wait(HEARING)
        finally:
            if token is not None:
                token.detach(waiter)
        if token is not None:
            token.check()
        # If it was woken before the end, its token nudged it, and somebody still makes the object.
        # If nothing has woken it and nobody makes the object, an interrupt came.
        return self._is_over or not (is_woken or self._steps.gi_running)


class Cache:
    """A thread-safe mapping of keys to objects.

    Attributes:
        eviction_threshold (datetime.timedelta):
            :meth:`evict` removes objects that weren't used for this long.
    """

    class _Item:
        __slots__ = ("object", "used")

        def __init__(self, thing: Any) -> None:
            self.object = thing
            self.used = time.monotonic()

    def __init__(self, eviction_threshold: timedelta = timedelta(hours=4)) -> None:
        """Create an empty cache.

        Args:
            eviction_threshold: :meth:`evict` removes objects that weren't used for this long.
        """
        self.eviction_threshold = eviction_threshold
        # Only changed by single, atomic operations of dict, without a lock: a signal handler that
        # uses the cache must not deadlock.
        self._items: dict[Hashable, Cache._Item] = {}
        self._making: dict[tuple[Process, Hashable], _Making] = {}

    def put(self, key: Hashable, object: Any) -> None:
        """Add an object. It replaces the object with the same key.

        Args:
            key:
                Any hashable object.
            object:
                Any object.
        """
        self._items[key] = self._Item(object)

    def setdefault(self, key: Hashable, object: Any) -> Any:
        """Add an object unless the key exists, atomically.

        Args:
            key:
                Any hashable object.
            object:
                Any object.

        Returns:
            The object that is in the cache now.
        """
        item = self._items.setdefault(key, self._Item(object))
        item.used = time.monotonic()
        return item.object

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the object of a key. If there is none, one thread makes it while others wait.

        Nobody holds a lock meanwhile, so ``make`` may do I/O. If it raises, another thread that
        waits calls its own ``make``. After an interrupt two threads may make an object; both get
        the first. A thread of a download that is shut down stops waiting.

        Args:
            key:
                Any hashable object.
            make:
                Makes the object.

        Raises:
            Exception: What ``make`` raised, or that the download of the calling thread, such as in
                ``auth``, was shut down.
        """
        while True:
            item = self._items.get(key)
            if item is not None:
                item.used = time.monotonic()
                found: T = item.object
                return found
            # In a forked child, what another thread of the parent was making is never made.
            name = Process.current, key
            mine = _Making(self._make(name, make))
            making = self._making.setdefault(name, mine)
            if making is mine:
                mine.run()
            elif making.wait() and self._making.get(name) is making:
                self._making.pop(name, None)

    def get(self, key: Hashable) -> Any:
        """Return the object of a key.

        Args:
            key: The key.

        Raises:
            LookupError: The key doesn't exist.
        """
        item = self._items.get(key)
        if item is None:
            raise LookupError(f"nothing is cached under a key of type {type(key).__name__}")
        item.used = time.monotonic()
        return item.object

    def purge(self, key: Hashable) -> Any:
        """Remove the object of a key, and return it.

        Args:
            key: The key.

        Raises:
            LookupError: The key doesn't exist.
        """
        item = self._items.pop(key, None)
        if item is None:
            raise LookupError(f"nothing is cached under a key of type {type(key).__name__}")
        return item.object

    def evict(self) -> list[Any]:
        """Remove objects that weren't used within the threshold and have no other reference.

        Returns:
            The objects that were removed. They aren't closed.
        """
        latest = time.monotonic() - self.eviction_threshold.total_seconds()
        items = list(self._items.items())
        kept = Counter(id(item.object) for _, item in items)
        stale = [
            (key, item)
            for key, item in items
            # The argument of getrefcount() is one more reference.
            if item.used <= latest and sys.getrefcount(item.object) <= kept[id(item.object)] + 1
        ]
        return [item.object for key, item in stale if self._drop(key, item, latest)]

    def close(self) -> None:
        """Close and remove each object that is a ``Resource``, such as a connection pool."""
        for key, item in list(self._items.items()):
            if isinstance(item.object, Resource) and self._items.pop(key, None) is not None:
                try:
                    item.object.close()
                except Exception:
                    log.exception("A resource could not be closed")

    def __contains__(self, key: Hashable) -> bool:
        """Whether the key exists."""
        return key in self._items

    def _make(self, name: tuple[Process, Hashable], make: Callable[[], object]) -> Iterator[None]:
        """Make an object. The interpreter knows whether this generator is still running."""
        try:
            # Another thread may have made the object just before this generator began.
            if name[1] not in self._items:
                self.setdefault(name[1], make())
        finally:
            self._making.pop(name, None)
        yield from ()

    def _drop(self, key: Hashable, item: _Item, latest: float) -> bool:
        """Remove an item, unless another thread has replaced or used it meanwhile."""
        if self._items.pop(key, None) is not item:
            return False
        if item.used > latest:
            self._items.setdefault(key, item)
            return False
        return True

    def __repr__(self) -> str:
        # Keys and objects may be credentials, so neither is shown.
        return f"<Cache of {len(self._items)}>"


class Context:
    """Attributes and a cache that downloads share.

    Set and read attributes as on ``threading.local``. Unlike there, all threads see the same
    values::

        with context:
            if not hasattr(context, 'token'):
                context.token = fetch_token()

    ``with context`` holds the context's re-entrant lock. The library itself never acquires it, so
    a handler may run a download while it holds the lock.

    Attributes:
        cache (Cache): Shared objects, such as sessions.
    """

    cache: Cache

    def __init__(self, **properties: Any) -> None:
        """Create a context with an empty cache.

        Args:
            properties: The initial attributes.
        """
        self.__dict__["_lock"] = threading.RLock()
        self.cache = Cache()
        self.__dict__.update(properties)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the context has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value

    # These are properties that return functions implemented in C. The `with` statement looks up
    # both before it calls the first. In a method written in Python, a signal handler could raise
    # KeyboardInterrupt after the lock was acquired and before the `with` block began. Nothing would
    # release the lock then.

    @property
    def __enter__(self) -> Callable[[], Self]:
        # next() on this iterator calls acquire() and, because that returns True, returns the
        # context.
        return functools.partial(
            next, itertools.compress(itertools.repeat(self), iter(self._lock.acquire, None))
        )

    @property
    def __exit__(self) -> Callable[..., None]:  # noqa: PLE0302 - it is a property
        return self._lock.__exit__  # type: ignore[no-any-return]

    def close(self) -> None:
        """Close the resources in the cache, such as connection pools.

        The creator of a context closes it. A batch closes only a context that it created itself. A
        closed context can be used again. Its downloads open new connections.
        """
        self.cache.close()

    def __repr__(self) -> str:
        # Only the names: the values may be access tokens.
        names = sorted(name for name in self.__dict__ if name not in ("cache", "_lock"))
        return f"<Context {', '.join(names)}>"
