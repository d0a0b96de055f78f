"""Digests that are computed beside the transfer, where the content is large.

hashlib lets go of the interpreter while it works on a large buffer. So the digest of a large file
need not add to the time of its transfer, and several digests of it are computed side by side.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from collections import deque

from ..waiting.lock import Process, this_process

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

_IDLE = 0.05
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
    """A digest of content that comes bit by bit."""

    def __init__(self, name: str) -> None:
        """Make a digest of no bytes.

        Args:
            name: One of ``DigestValidation.ALGORITHMS``.
        """
        self._name = name
        # Made when it is needed: many are started again before they have taken anything.
        self._hash: hashlib._Hash | None = None
        self._size = 0
        self._lane: _Lane | None = None

    def update(self, buffer: bytes) -> None:
        """Take the next bytes.

        Args:
            buffer: The bytes. What can be changed is worked on at once.
        """
        self._size += len(buffer)
        if self._lane is None and (self._size <= LARGE or len(buffer) < LEAST):
            digest = self._hash or self.settle()
            if len(buffer) > SMALL:
                digest.update(buffer)
            else:
                # In pieces for which hashlib keeps the interpreter: where other threads wait for
                # it, to get it back takes longer than the digest.
                for start in range(0, len(buffer), _KEPT):
                    digest.update(buffer[start : start + _KEPT])
        elif type(buffer) is not bytes:
            self.settle().update(buffer)
        else:
            if self._lane is None:
                self._lane = _Lane(self.settle(), this_process())
            self._lane.add(buffer)

    def settle(self) -> hashlib._Hash:
        """Return hashlib's object, when all bytes that were taken are in it."""
        if self._lane is not None:
            self._lane.wait()
        if self._hash is None:
            self._hash = new_hash(self._name)
        return self._hash


class _Lane:
    """The buffers that wait for one digest, in their order."""

    def __init__(self, digest: hashlib._Hash, process: Process) -> None:
        self._digest = digest
        self._process = process
        self._helpers = _helpers_of(process)
        # The lock of the helpers guards these.
        self._buffers: list[bytes] = []
        # Bytes that wait, with those that are worked on.
        self._size = 0
        # A thread works on it, or will.
        self._is_taken = False
        self._error: BaseException | None = None

    def add(self, buffer: bytes) -> None:
        """Have a buffer added to the digest, by and by."""
        self._check()
        with self._helpers.done:
            # It ends, for who has taken the lane computes, and does nothing else.
            while self._size > WINDOW:
                self._helpers.done.wait()
            self._buffers.append(buffer)
            self._size += len(buffer)
            if self._is_taken or self._size < PIECE:
                return
            self._is_taken = True
            self._helpers.hand(self)
            is_wanted = self._helpers.is_wanted()
        if is_wanted:
            self._helpers.start()

    def wait(self) -> None:
        """Wait until the digest has all that was added."""
        self._check()
        with self._helpers.done:
            while self._is_taken:
                self._helpers.done.wait()
            # What is left is too little for another thread.
            self._is_taken = is_mine = bool(self._buffers)
        if is_mine:
            self.work()
            # Others may have brought more meanwhile, and the helpers have gone.
            with self._helpers.done:
                is_wanted = self._helpers.is_wanted()
            if is_wanted:
                self._helpers.start()
        if self._error is not None:
            raise self._error

    def work(self) -> None:
        """Add what waits to the digest."""
        with self._helpers.done:
            buffers, self._buffers = self._buffers, []
        size = sum(map(len, buffers))
        try:
            for buffer in buffers:
                self._digest.update(buffer)
        except Exception as error:  # noqa: BLE001 - it is raised by wait()
            self._error = error
        except BaseException:
            # For the thread that it hit. The digest isn't that of all that came any more.
            self._error = RuntimeError("the digest was interrupted while it was computed")
            raise
        finally:
            del buffers
            with self._helpers.done:
                self._size -= size
                self._is_taken = self._size >= PIECE
                if self._is_taken:
                    # Behind the others that wait.
                    self._helpers.hand(self)
                self._helpers.done.notify_all()

    def _check(self) -> None:
        if self._process is not this_process():
            raise RuntimeError("a digest can't go on in a process that was forked meanwhile")


class _Helpers:
    """Threads that compute digests, no more than there are processors, while there is work.

    Attributes:
        done (threading.Condition): Is told when a part of a lane was worked on.
    """

    def __init__(self) -> None:
        # Guards the other attributes, and the lanes.
        lock = threading.Lock()
        self.done = threading.Condition(lock)
        self._came = threading.Condition(lock)
        self._lanes: deque[_Lane] = deque()
        self._most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        self._threads = self._idle = 0

    def hand(self, lane: _Lane) -> None:
        """Have a lane worked on. Who calls has the lock."""
        self._lanes.append(lane)
        self._came.notify()

    def is_wanted(self) -> bool:
        """Whether a thread is to be started, which is counted then. Who calls has the lock."""
        is_wanted = self._idle < len(self._lanes) and self._threads < self._most
        self._threads += is_wanted
        return is_wanted

    def start(self) -> None:
        """Start a thread."""
        try:
            threading.Thread(target=self._run, name="download-digest", daemon=True).start()
        except RuntimeError:
            # Where the system gives no more threads, this one does what there is.
            self._run()

    def _run(self) -> None:
        while (lane := self._next()) is not None:
            lane.work()

    def _next(self) -> _Lane | None:
        with self._came:
            while not self._lanes:
                self._idle += 1
                came = self._came.wait(_IDLE)
                self._idle -= 1
                if not came and not self._lanes:
                    self._threads -= 1
                    return None
            return self._lanes.popleft()


@functools.cache
def _helpers_of(process: Process) -> _Helpers:
    """The threads of a process: a forked child has none of its parent's."""
    return _Helpers()
