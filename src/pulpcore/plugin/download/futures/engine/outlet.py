"""Hands the content of a download over to another thread, which reads it as a stream.

Two threads use an :class:`Outlet`. The thread of the download puts each buffer in; the engine
does so after the writer and the validations have taken the buffer. The reader takes the buffers
out. No method takes a lock, because the reader is often the main thread: see ``waiting.atomic``.

Bytes that the reader has taken can't be withdrawn. So the newest buffer is held back until the next
one arrives, or until the validations have passed. If the content restarts at byte 0, the outlet
compares it with the bytes that were handed over, and continues after them only if they are equal.
"""

from __future__ import annotations

import hashlib
import weakref
from collections import deque
from collections.abc import Callable
from types import TracebackType

from ..error import DownloadFailed
from ..waiting.atomic import HEARING, Waiter
from ..waiting.cancellation import Cancellation

# Buffers that were handed over and not yet read. Together with the one that is held back and the
# one that is being fetched, they bound the memory of a stream.
_MOST = 1


class Outlet:
    """The buffers between the thread of a download and the reader of its stream.

    Attributes:
        token (Cancellation): The cancellation token of the stream. It wakes both threads.
    """

    def __init__(self, token: Cancellation, reader: object) -> None:
        """Create an empty outlet.

        Args:
            token: The cancellation token of the stream.
            reader: The object whose end cancels the stream, too.
        """
        self.token = token
        self._reader = weakref.ref(reader)
        # Each buffer that was handed over, with its offset, until the reader has read it whole.
        self._chunks: deque[tuple[int, bytes]] = deque()
        self._held = b""
        self._given = 0
        self._digest = hashlib.sha256()
        # The size and the digest of the content that started again, while it is compared.
        self._again = 0
        self._again_digest = self._digest
        self._is_comparing = False
        # The size of the content, once the validations have passed.
        self._total: int | None = None
        self._is_end_wanted = False
        self._is_begun = self._is_ended = False
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._waiting: dict[str, Waiter] = {}

    # The thread of the download.

    def begin(self) -> bool:
        """Return True for the first call only: the outlet serves one run."""
        was_begun, self._is_begun = self._is_begun, True
        return not was_begun

    def put(self, buffer: bytes) -> None:
        """Take the next buffer, and hand the one before it over.

        Args:
            buffer: The buffer.

        Raises:
            DownloadFailed: The content started again and differs from what was handed over.
        """
        if self._is_comparing:
            buffer = self._compare(buffer)
        if buffer:
            self._hand_over()
            self._held = buffer
            self._wake("reader")

    def restart(self) -> None:
        """Expect the content again from byte 0."""
        self._held = b""
        self._total = None
        self._again, self._again_digest = 0, hashlib.sha256()
        self._is_comparing = self._given > 0

    def has_room(self) -> bool:
        """Return whether more content may be fetched. If not, :meth:`wait_for_room` first."""
        return len(self._chunks) <= _MOST

    def wait_for_room(self) -> None:
        """Wait until the reader has read enough.

        Raises:
            Cancelled: The stream was closed.
        """
        self._wait("download", self.has_room)
        self.token.check()

    def complete(self) -> None:
        """Hand the last buffer over, because the validations have passed.

        Raises:
            DownloadFailed: The content started again and is shorter than what was handed over.
        """
        if self._is_comparing:
            raise _changed()
        # Set this before handing over the last buffer: the reader compares it with its position.
        self._total = self._given + len(self._held)
        self._hand_over()
        self._wake("reader")

    def wait_for_end(self) -> None:
        """Wait until the reader asks for the end of the content.

        Raises:
            Cancelled: The stream was closed.
        """
        self._wait("download", lambda: self._is_end_wanted)
        self.token.check()

    def end(self, error: BaseException | None) -> None:
        """Note that the run has ended.

        Args:
            error: Why it failed; None if it succeeded.
        """
        if error is None and self._total is None and (self._held or self._given):
            # A class that overrides __call__ may have caught the error.
            error = DownloadFailed("the download ended before its content was complete")
        if error is not None:
            self._traceback = error.__traceback__
        self._error, self._is_ended = error, True
        self._wake("reader")

    def _hand_over(self) -> None:
        buffer, self._held = self._held, b""
        if buffer:
            self._digest.update(buffer)
            offset, self._given = self._given, self._given + len(buffer)
            self._chunks.append((offset, buffer))

    def _compare(self, buffer: bytes) -> bytes:
        """Return the part of a buffer that comes after the bytes that were handed over."""
        known = buffer[: self._given - self._again]
        self._again_digest.update(known)
        self._again += len(known)
        if self._again == self._given:
            if self._again_digest.digest() != self._digest.digest():
                raise _changed()
            self._is_comparing = False
        return buffer[len(known) :]

    # The reader.

    def get(self, position: int) -> tuple[int, bytes] | None:
        """Wait for the buffer that has a position, and drop those before it.

        Args:
            position: The number of bytes that the reader has read.

        Returns:
            The buffer and its offset. None at the end, after the writer has published the content.

        Raises:
            DownloadError: The download has failed, or was cancelled.
            Exception: The download raised it.
        """
        while True:
            self._wait("reader", lambda: self._is_due(position))
            while self._chunks:
                offset, buffer = self._chunks[0]
                if position < offset + len(buffer):
                    return offset, buffer
                self._chunks.popleft()
                self._wake("download")
            if self._is_ended or self.token.reason is not None:
                self.check()
                return None
            if self.is_last(position):
                self._is_end_wanted = True
                self._wake("download")

    def is_last(self, position: int) -> bool:
        """Return whether all content was read, and the validations have passed.

        Args:
            position: The number of bytes that the reader has read.
        """
        return position == self._total

    def check(self) -> None:
        """Raise if the download has failed, or was cancelled before its end.

        Raises:
            DownloadError: The download has failed, or was cancelled.
            Exception: The download raised it.
        """
        # Read this before the error, because end() sets it after the error.
        is_ended = self._is_ended
        if self._error is not None:
            # Otherwise each call would add its frames to the traceback.
            raise self._error.with_traceback(self._traceback)
        if self.token.reason is not None and not is_ended:
            raise DownloadFailed(self.token.reason)

    def _is_due(self, position: int) -> bool:
        is_at_end = self.is_last(position) and not self._is_end_wanted
        return bool(self._chunks) or self._is_ended or is_at_end

    # Both threads.

    def _wait(self, who: str, is_due: Callable[[], bool]) -> None:
        """Sleep until a condition holds, or the stream was cancelled."""
        while not is_due() and self.token.reason is None:
            waiter = self._waiting[who] = Waiter()
            self.token.attach(waiter)
            try:
                # Check again: the other thread may have acted before it could see the waiter.
                if not is_due():
                    waiter.wait(HEARING)
            finally:
                self.token.detach(waiter)
            if self._reader() is None:
                self.token.cancel("nobody reads the stream any more")

    def _wake(self, who: str) -> None:
        if (waiter := self._waiting.get(who)) is not None:
            waiter.wake()


def _changed() -> DownloadFailed:
    return DownloadFailed(
        "the content started again, and differs from what was read of the stream before"
    )
