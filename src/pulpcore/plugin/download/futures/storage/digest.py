"""Digests. Helper threads compute those of large content in parallel with the transfer.

hashlib releases the interpreter lock while it hashes a large buffer. So the digest of a large file
adds no time to its transfer, and several digests of one file are computed in parallel.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import threading
from collections import deque

from ..waiting.atomic import HEARING, Waiter
from ..waiting.lock import Process
from ..waiting.threads import Workers

LARGE = 1024 * 1024
"""Bytes of one content that the calling thread hashes itself. The rest goes to a helper thread."""

SMALL = 8 * 1024
"""Buffers up to this size are hashed without releasing the interpreter lock (bytes)."""

LEAST = 16 * 1024
"""Smaller buffers never cause the switch to a helper thread (bytes)."""

PIECE = 512 * 1024
"""Bytes that must wait before a helper thread is woken.

Waking it for each buffer takes longer than hashing the buffer.
"""

WINDOW = 8 * 1024 * 1024
"""Bytes that may wait for one digest. Beyond that, ``update()`` blocks."""

# The largest buffer for which hashlib keeps the interpreter lock (HASHLIB_GIL_MINSIZE is 2048).
_HASHED_UNDER_LOCK = 2047


def new_hash(name: str) -> hashlib._Hash:
    """Create a hash object of hashlib.

    ``usedforsecurity=False`` makes md5 and sha1 work in FIPS mode, too. The digests detect damage;
    they don't authenticate.

    Args:
        name: One of ``DigestValidation.ALGORITHMS``.
    """
    return hashlib.new(name, usedforsecurity=False)


@functools.cache
def blank(name: str) -> hashlib._Hash:
    """Return a hash object that has seen nothing, to copy: OpenSSL is slow to make one by name.

    Args:
        name: One of ``DigestValidation.ALGORITHMS``.
    """
    return new_hash(name)


@functools.cache
def digits(name: str) -> int:
    """Return the number of hex digits of a digest.

    Args:
        name: One of ``DigestValidation.ALGORITHMS``.
    """
    return new_hash(name).digest_size * 2


class Digest:
    """A digest of content that arrives in buffers.

    One thread calls :meth:`update`. Any thread, or a forked child, may call :meth:`current` at the
    same time. So a hash object never changes once other threads can see it: each update goes to a
    copy, which then replaces the object.

    Attributes:
        size (int): The number of bytes passed to :meth:`update`. It grows before the digest does.
    """

    # Created on first use: many digests are reset before the first byte.
    _hash: hashlib._Hash | None = None

    def __init__(self, name: str) -> None:
        """Start with the digest of no bytes.

        Args:
            name: One of ``DigestValidation.ALGORITHMS``.
        """
        self._name = name
        self.size = 0
        self._queue: _Queue | None = None

    def update(self, buffer: bytes) -> None:
        """Add the next bytes.

        Args:
            buffer: The bytes. Only ``bytes`` goes to a helper thread. The calling thread hashes any
                other type, since the caller may change the buffer after this call.
        """
        size = len(buffer)
        self.size += size
        if self._queue is None and (self.size <= LARGE or size < LEAST):
            digest = (self._hash or blank(self._name)).copy()
            if size > SMALL:
                digest.update(buffer)
            else:
                # Pieces so small that hashlib keeps the interpreter lock. With several busy
                # threads, getting the lock back takes longer than hashing.
                for start in range(0, size, _HASHED_UNDER_LOCK):
                    digest.update(buffer[start : start + _HASHED_UNDER_LOCK])
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
        """Return the hash object of all bytes so far. Any thread may call this."""
        queue = self._queue
        if queue is not None:
            return queue.total()
        # setdefault() is atomic: it must not replace the object that update() sets at this moment.
        digest: hashlib._Hash = self._hash or vars(self).setdefault("_hash", new_hash(self._name))
        return digest

    def _without_queue(self, digest: hashlib._Hash) -> None:
        # The order matters: another thread may call current() between the two assignments.
        self._hash = digest
        self._queue = None


class _Queue:
    """The buffers that wait to be hashed into one digest, in order.

    One thread adds buffers. At most one helper thread hashes at a time.
    """

    def __init__(self, digest: hashlib._Hash) -> None:
        # The digest and the number of buffers hashed into it: one tuple, so that the helper thread
        # replaces both at once.
        self._done = (digest, 0)
        # Buffers with their number from 0. A buffer stays for a moment after it has been hashed.
        self._buffers: deque[tuple[int, bytes]] = deque()
        self._added = self._added_size = self._done_size = 0
        self._error: BaseException | None = None
        # The result of the last total(), and its number of buffers.
        self._total = self._done
        self._waiting: deque[Waiter] = deque()
        self._renew_lock()

    def _renew_lock(self) -> None:
        self._process = Process.current
        # The helper thread that hashes holds it. Only the main thread runs signal handlers, so a
        # signal can't leave this lock held.
        self._working = threading.Lock()

    def add(self, buffer: bytes) -> bool:
        """Queue a buffer. Blocks while more than WINDOW bytes wait.

        Returns:
            False if no helper thread can be started.
        """
        self._buffers.append((self._added, buffer))
        self._added += 1
        self._added_size += len(buffer)
        return self._left() < PIECE or self._work_until(WINDOW)

    def total(self) -> hashlib._Hash:
        """Return the digest of all buffers that were added before the call."""
        total = self._total
        if total[1] < self._added:
            # Helper threads hash all but the last PIECE - 1 bytes; this thread hashes those.
            self._work_until(PIECE - 1)
            total = self._total = self._sum()
        if self._error is not None:
            raise self._error
        return total[0]

    def _left(self) -> int:
        return self._added_size - self._done_size

    def _work_until(self, most: int) -> bool:
        """Start a helper thread, and wait until at most so many bytes are left.

        Bounded: a helper thread only hashes and never waits.

        Returns:
            False if no helper thread can be started.
        """
        if self._process is not Process.current:
            # This is a forked child. It has none of its parent's threads, and the lock may be held
            # by one of them. So hash here, and start with a new lock.
            self._done, self._done_size = self._sum(), self._added_size
            self._buffers.clear()
            self._renew_lock()
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
        """Compute the digest of all buffers. It changes no state, so any thread may call it."""
        while True:
            done = self._done
            digest, number = done[0].copy(), done[1]
            buffers = self._buffers.copy()
            if done is not self._done:
                # The helper thread has finished meanwhile, and may have removed buffers.
                continue
            for place, buffer in buffers:
                if place >= number:
                    digest.update(buffer)
                    number = place + 1
            return digest, number

    def _work(self) -> None:
        """Hash the queued buffers, in a helper thread."""
        if self._working.acquire(blocking=False):
            try:
                self._add_waiting()
            except Exception as error:  # noqa: BLE001 - it is raised by total()
                self._error = error
            self._working.release()
            with contextlib.suppress(IndexError):
                while True:
                    self._waiting.pop().wake()
            # add() starts no helper thread while this one works, so buffers may have been queued
            # since. Queue a new run instead of looping: other digests come first.
            if self._left() >= PIECE and self._error is None:
                _helpers_of(self._process).run(self._work)

    def _add_waiting(self) -> None:
        digest, number = self._done[0].copy(), self._done[1]
        buffers = self._buffers.copy()
        for _, buffer in buffers:
            digest.update(buffer)
        self._done = digest, number + len(buffers)
        for _, buffer in buffers:
            self._buffers.popleft()
            self._done_size += len(buffer)


@functools.cache
def _helpers_of(process: Process) -> Workers:
    """Return the helper threads of a process. A forked child needs its own."""
    most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return Workers(most, "download-digest")
