"""Digests that are computed beside the transfer, where the content is large.

hashlib lets go of the interpreter while it works on a large buffer. So the digest of a large file
need not add to the time of its transfer, and several digests of it are computed side by side.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import threading
from collections import deque

from ..waiting.atomic import HEARING, Waiter
from ..waiting.lock import Process, this_process
from ..waiting.threads import Workers

LARGE = 1024 * 1024
"""Bytes that a digest takes at once, before threads are thought to be worth it."""

SMALL = 8 * 1024
"""Up to this size a buffer isn't worth letting go of the interpreter (bytes)."""

LEAST = 16 * 1024
"""The least size of a buffer that is handed to a thread (bytes)."""

PIECE = 512 * 1024
"""Bytes that a thread is given at a time. To wake it for each buffer takes longer than a digest."""

WINDOW = 8 * 1024 * 1024
"""Bytes that may wait for one digest; then whoever brings more waits."""

# hashlib lets go of the interpreter from one byte more on.
_KEPT = 2047


def new_hash(name: str) -> hashlib._Hash:
    """Return hashlib's object for a digest of no bytes.

    It guards against damage and not for secrecy, and says so: md5 and sha1 also work where FIPS
    forbids them.

    Args:
        name: One of ``DigestValidation.ALGORITHMS``.
    """
    return hashlib.new(name, usedforsecurity=False)


@functools.cache
def digits(name: str) -> int:
    """Return how many hex digits a digest has.

    Args:
        name: One of ``DigestValidation.ALGORITHMS``.
    """
    return new_hash(name).digest_size * 2


class Digest:
    """A digest of content that comes bit by bit.

    One thread brings the content; any thread may look meanwhile, and a forked child too. For that,
    an object of hashlib's never changes once others can see it: what comes is added to a copy,
    which then replaces it.

    Attributes:
        size (int): How much was taken (bytes). It grows before the digest does.
    """

    # Made when it is needed: many are started again before they have taken anything.
    _hash: hashlib._Hash | None = None

    def __init__(self, name: str) -> None:
        """Make a digest of no bytes.

        Args:
            name: One of ``DigestValidation.ALGORITHMS``.
        """
        self._name = name
        self.size = 0
        self._queue: _Queue | None = None

    def update(self, buffer: bytes) -> None:
        """Take the next bytes.

        Args:
            buffer: The bytes. What can be changed is worked on at once.
        """
        self.size += len(buffer)
        if self._queue is None and (self.size <= LARGE or len(buffer) < LEAST):
            digest = new_hash(self._name) if self._hash is None else self._hash.copy()
            if len(buffer) > SMALL:
                digest.update(buffer)
            else:
                # In pieces for which hashlib keeps the interpreter: where other threads wait for
                # it, to get it back takes longer than the digest.
                for start in range(0, len(buffer), _KEPT):
                    digest.update(buffer[start : start + _KEPT])
            self._hash = digest
        elif type(buffer) is not bytes:
            digest = self.current().copy()
            digest.update(buffer)
            self._without_queue(digest)
        else:
            if self._queue is None:
                self._queue = _Queue(self.current())
            if not self._queue.add(buffer):
                self._without_queue(self._queue.total())

    def current(self) -> hashlib._Hash:
        """Return hashlib's object with all bytes that were taken. Any thread may call it."""
        queue = self._queue
        if queue is not None:
            return queue.total()
        # One step: it must not replace what another thread puts there just now.
        digest: hashlib._Hash = self._hash or vars(self).setdefault("_hash", new_hash(self._name))
        return digest

    def _without_queue(self, digest: hashlib._Hash) -> None:
        # In this order, for another thread may be about to look.
        self._hash = digest
        self._queue = None


class _Queue:
    """The buffers that wait to be added to one digest, in their order.

    One thread adds to it. Of the helper threads one at a time works on it.
    """

    def __init__(self, digest: hashlib._Hash) -> None:
        # A digest, and how many buffers it has. Replaced as one by the helper threads.
        self._done = (digest, 0)
        # What isn't in it yet, by number from 0, and maybe a moment longer.
        self._buffers: deque[tuple[int, bytes]] = deque()
        self._added = self._added_size = self._done_size = 0
        self._error: BaseException | None = None
        # The last total that somebody asked for, and how many buffers it has.
        self._total = self._done
        self._waiting: deque[Waiter] = deque()
        self._begin()

    def _begin(self) -> None:
        self._process = this_process()
        # Held by the helper thread that works on it. Such threads get no signals.
        self._working = threading.Lock()

    def add(self, buffer: bytes) -> bool:
        """Have a buffer added to the digest, by and by.

        Returns:
            False if there is no thread to be had that could do it.
        """
        self._buffers.append((self._added, buffer))
        self._added += 1
        self._added_size += len(buffer)
        return self._left() < PIECE or self._work_until(WINDOW)

    def total(self) -> hashlib._Hash:
        """Return a digest with all that was added before the call."""
        total = self._total
        if total[1] < self._added:
            # What is left then is too little for another thread.
            self._work_until(PIECE - 1)
            total = self._total = self._sum()
        if self._error is not None:
            raise self._error
        return total[0]

    def _left(self) -> int:
        return self._added_size - self._done_size

    def _work_until(self, most: int) -> bool:
        """Have helper threads work; wait until no more bytes are left than given.

        Bounded: a helper thread only hashes, and never waits.

        Returns:
            False if there is no thread to be had.
        """
        if self._process is not this_process():
            # The threads, and what one of them may just have been doing, are the parent's.
            self._done, self._done_size = self._sum(), self._added_size
            self._buffers.clear()
            self._begin()
        while self._error is None:
            left = self._left()
            if left >= PIECE and not self._working.locked():
                try:
                    _helpers_of(self._process).run(self._work)
                except RuntimeError:
                    return False
            if left <= most:
                break
            waiter = Waiter()
            self._waiting.append(waiter)
            if self._left() >= left:
                waiter.wait(HEARING)
        return True

    def _sum(self) -> tuple[hashlib._Hash, int]:
        """The digest of all buffers. It changes nothing, so that any thread may compute it."""
        while True:
            done = self._done
            digest, number = done[0].copy(), done[1]
            buffers = list(self._buffers)
            if done is not self._done:
                # Some of them may have been taken out meanwhile.
                continue
            for place, buffer in buffers:
                if place >= number:
                    digest.update(buffer)
                    number = place + 1
            return digest, number

    def _work(self) -> None:
        """Add what waits to the digest, in a helper thread."""
        if self._working.acquire(blocking=False):
            try:
                self._add_waiting()
            except Exception as error:  # noqa: BLE001 - it is raised by total()
                self._error = error
            self._working.release()
            with contextlib.suppress(IndexError):
                while True:
                    self._waiting.pop().wake()
            # Whoever found it at work has left the rest to it. The others that wait come first.
            if self._left() >= PIECE and self._error is None:
                _helpers_of(self._process).run(self._work)

    def _add_waiting(self) -> None:
        digest, number = self._done[0].copy(), self._done[1]
        buffers = list(self._buffers)
        for _, buffer in buffers:
            digest.update(buffer)
        self._done = digest, number + len(buffers)
        for _, buffer in buffers:
            self._buffers.popleft()
            self._done_size += len(buffer)


@functools.cache
def _helpers_of(process: Process) -> Workers:
    """The threads that compute digests: a forked child has none of its parent's."""
    most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return Workers(most, "download-digest")
