"""One file in parts, over several connections (``HttpDownload.parts``).

It is a reader ahead, not a second way to write: the thread of the download hands the bytes on in
order, as always. It begins with the reply to the ordinary request, and reads that as a stream.
While the sum of the speeds grows, further threads fetch parts that lie ahead, by ``Range`` and
``If-Range``, into memory. When the stream arrives at such a part, its connection is closed and the
part is handed on. From there all connections fetch parts, until one is enough again, which then is
a stream. A part that has hardly begun when the stream arrives is dropped, and the stream goes on.

Each part is checked as the rest of a broken transfer is: status, Content-Range, validator and place
(:meth:`.resume.Version.is_continued`).
"""

from __future__ import annotations

import mmap
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextvars import copy_context
from functools import partial
from typing import NamedTuple

import requests

from ..engine import backoff
from ..engine.attempt import Attempt
from ..engine.limited import leave_place, take_place
from ..engine.ramp import Progress, Ramp
from ..engine.tracing import Requests, branch
from ..error import DownloadError, DownloadFailed
from ..net.url import URL, parse
from ..waiting.atomic import Waiter
from ..waiting.cancellation import Cancellation, current, scope
from ..waiting.threads import Workers
from . import failure, resume
from .exchange import Exchange
from .options import Options
from .redirect import SCHEMES
from .wire.reply import READ_BY_OTHERS, header, length, reader, was_read_alone

SIZE = 8 * 1024 * 1024
"""The size of a part (bytes)."""

SMALLEST = 2 * SIZE
"""The size of the smallest file that is fetched in parts (bytes)."""

FAILURES = 4
"""How often a part may fail in a row."""

ADVANCE = 256 * 1024
"""A part that fails after it brought so much (bytes) doesn't fail in a row."""

_PAUSE = 0.1
"""How long to wait before a part is fetched a third time (seconds), doubled each time."""

_AHEAD_TRIPS = 8
"""So many round trips of the stream lie before the first part: a new connection begins slowly."""

_LOOK = 0.02
"""How often the thread of the download looks for what is to be done (seconds)."""

_END = 2.0
"""How long to wait for the threads at the end: a look-up of a name can't be cut short (seconds)."""

_READ = 64 * 1024
"""The most bytes that a thread reads into a part at a time.

Each thread has a heap of its own (an arena of glibc), which keeps the largest buffer's size.
"""

_SHORT = "what came is shorter than the server said"


class Origin(NamedTuple):
    """Where the parts come from, and how.

    Attributes:
        source (str): The URL that the attempt asks.
        urls (Sequence[str]): The URLs that were asked for the first reply, redirects included.
        version (resume.Version): The version of the file.
        total (int): The size of the file (bytes).
    """

    source: str
    urls: Sequence[str]
    version: resume.Version
    total: int


def origin(
    reply: requests.Response, urls: Sequence[str], source: str, known: resume.Version | None
) -> Origin | None:
    """Return where the parts of a file come from; None if it can't be fetched in parts.

    Args:
        reply: The reply to the first request.
        urls: The URLs that were asked for it.
        source: The URL that the attempt asks.
        known: The version of the file; None without a strong validator.
    """
    if known is None or known.coding or header(reply, "content-encoding"):
        return None
    if reply.status_code == requests.codes.partial_content:
        part = resume.content_range(reply)
        total = None if part is None else part.total
    else:
        units = (header(reply, "accept-ranges") or "").lower().split(",")
        total = length(reply) if "bytes" in map(str.strip, units) else None
    if total is None or total < SMALLEST:
        return None
    return Origin(source, urls, known._replace(total=total), total)


class Fetcher:
    """Asks for ranges of a file, and checks the replies. Any thread may use it.

    Attributes:
        trace (Requests | None): Traces the requests of the thread of the download.
    """

    def __init__(self, download: Options, attempt: Attempt, origin: Origin) -> None:
        """Make a fetcher.

        Args:
            download: The download.
            attempt: The attempt.
            origin: Where the file comes from.
        """
        self._download, self._attempt, self._origin = download, attempt, origin
        self.trace = attempt.trace

    def ask(
        self, first: int, end: int, is_again: bool, trace: Requests | None
    ) -> requests.Response:
        """Return a reply that brings a range, with its body unread.

        Args:
            first: The position of its first byte.
            end: The position behind its last byte.
            is_again: It was asked for before. Then the first URL is asked again, because the one
                that it redirects to may have expired.
            trace: Traces the requests of the calling thread; None for nothing.

        Raises:
            DownloadFailed: There is no such reply.
            Cancelled: The work of the caller was cancelled.
        """
        where = self._origin
        headers = {"Range": f"bytes={first}-{end - 1}", "If-Range": where.version.validator}
        exchange = Exchange(
            self._download, headers, self._before, where.source, self._attempt.limits, trace
        )
        reply = exchange.run(() if is_again else where.urls)
        status = reply.status_code
        # Without a length, only the end of the body would show that it is the right range.
        if (
            status == requests.codes.partial_content
            and length(reply) is not None
            and where.version.is_continued(reply, exchange.urls[-1], first, end)
        ):
            return reply
        reply.close()
        if status < 300:
            raise DownloadFailed(
                "the server didn't send the part that was asked for, or sent it of another version"
            )
        retry_after = backoff.retry_after(header(reply, "retry-after") or "")
        raise failure.from_status(status, retry_after, "Authorization" in reply.request.headers)

    def take(self, reply: requests.Response, size: int) -> bytes:
        """Return what is there of the body of a reply; b"" at its end.

        Args:
            reply: The reply.
            size: The most bytes to return.

        Raises:
            DownloadFailed: The connection failed.
            Cancelled: The work of the caller was cancelled.
        """
        try:
            return reader(reply)(size)
        except failure.ANTICIPATED as error:
            secrets = self._origin.source, reply.url or ""
            raise failure.from_exception(error, *secrets) from error

    @property
    def hosts(self) -> list[Hashable]:
        """The origins of the URLs that were asked for the first reply."""
        return list(dict.fromkeys(parse(url, SCHEMES).origin for url in self._origin.urls))

    def _before(self, url: URL) -> float | None:
        limiter, token = self._download.rate_limiter, current() or Cancellation()
        token.check()
        if limiter is not None and (delay := limiter.delay()) > 0:
            token.wait(delay)
        return self._attempt.connect_timeout()


class Part:
    """A range of the file that a thread fetches into memory.

    That thread sets the attributes, until ``is_ended``. The thread of the download reads what has
    been received.

    Attributes:
        first (int): The position of its first byte.
        end (int): The position behind its last byte.
        memory (mmap.mmap): Where the bytes go.
        received (int): How much came (bytes).
        handed (int): How much was handed on (bytes).
        token (Cancellation): Ends the fetching.
        failures (int): How often it has failed in a row.
        error (DownloadError): Why it failed last, if it has failed.
        bug (BaseException | None): What was raised that is no failure.
        is_ended (bool): No thread fetches it now.
        has_place (bool): It uses a place of its own at the host.
    """

    def __init__(self, first: int, end: int, memory: mmap.mmap) -> None:
        """Note a range.

        Args:
            first: The position of its first byte.
            end: The position behind its last byte.
            memory: Where the bytes go.
        """
        self.first, self.end, self.memory = first, end, memory
        self.received = self.handed = 0
        self.token = Cancellation()
        self.failures = 0
        self.error: DownloadError = DownloadFailed(_SHORT)
        self.bug: BaseException | None = None
        self.is_ended = self.has_place = False

    def read(self, size: int) -> bytes:
        """Return what has come and was not handed on.

        Args:
            size: The most bytes to return.
        """
        data = self.memory[self.handed : min(self.received, self.handed + size)]
        self.handed += len(data)
        return data

    def fetch(self, fetcher: Fetcher, block: int, came: Callable[[Part], object]) -> None:
        """Fetch what is missing. This never raises.

        Args:
            fetcher: Asks for it.
            block: The largest buffer (bytes).
            came: Called with this part for each buffer.
        """
        before = self.received
        try:
            with scope(self.token), branch(fetcher.trace) as trace:
                self.token.check()
                if (delay := _delay(self.error, self.failures)) > 0:
                    self.token.wait(delay)
                self._fetch(fetcher, block, came, trace)
                self.failures = 0
        except DownloadError as error:
            if self.received - before >= ADVANCE:
                self.failures = 0
            self.failures += 1
            self.error = error.with_traceback(None)
        except BaseException as error:  # noqa: BLE001 - the thread of the download raises it
            self.bug = error.with_traceback(None)

    def _fetch(
        self,
        fetcher: Fetcher,
        block: int,
        came: Callable[[Part], object],
        trace: Requests | None,
    ) -> None:
        reply = fetcher.ask(self.first + self.received, self.end, self.failures > 0, trace)
        try:
            while left := self.end - self.first - self.received:
                buffer = fetcher.take(reply, min(block, left))
                if not buffer:
                    raise DownloadFailed(_SHORT)
                received = self.received + len(buffer)
                self.memory[self.received : received] = buffer
                # Afterwards: the other thread reads up to there.
                self.received = received
                came(self)
        finally:
            # Gives the connection back if the body was read to its end; else closes it.
            reply.close()


def _delay(error: DownloadError, failures: int) -> float:
    """Return how long to wait before a range is asked for again (seconds).

    Args:
        error: Why it failed last.
        failures: How often it has failed in a row.
    """
    if not failures:
        return 0.0
    return max(error.retry_after or 0.0, _PAUSE * 2.0 ** (failures - 2) if failures > 1 else 0.0)


class Team:
    """The threads that fetch parts of one file, and the parts, in order.

    Only the thread of the download uses it, and that may be the main thread, which an interrupt may
    leave anywhere. So it shares no lock with the others. They tell it something by appending to a
    deque, and then wake it.

    Attributes:
        parts (deque[Part]): The parts that were not handed on completely, in order.
        front (int): The position behind the last part.
    """

    def __init__(self, fetcher: Fetcher, attempt: Attempt, most: int, block: int) -> None:
        """Begin without threads.

        Args:
            fetcher: Asks for ranges.
            attempt: The attempt.
            most: The most threads.
            block: The largest buffer (bytes).
        """
        self._fetcher, self._attempt, self._block = fetcher, attempt, block
        self.parts: deque[Part] = deque()
        self.front = 0
        # Maps, because memory that one thread allocates and another frees would stay with the
        # process: the heap of each thread would grow to the largest size that it ever had.
        self._free: list[mmap.mmap] = []
        self._unmapped = most
        # Parts that aren't needed any more, but may still be written to.
        self._dropped: set[Part] = set()
        self._running: set[Part] = set()
        self._ended: deque[Part] = deque()
        # The part that the thread of the download waits for, and what wakes it.
        self._awaited: Part | None = None
        self._waiter: Waiter | None = None
        self._token = Cancellation(current())
        self._workers = Workers(most, "futures_part")

    @property
    def running(self) -> int:
        """The number of parts that are being fetched."""
        return len(self._running)

    def active(self) -> int:
        """Return the number of parts that are being fetched and have brought something."""
        return sum(1 for part in self._running if part.received)

    def buffered(self) -> int:
        """Return how much lies in memory (bytes)."""
        return sum(part.received - part.handed for part in self.parts)

    def collect(self) -> list[Part]:
        """Return the parts whose fetching has ended since the last call."""
        ended = []
        while self._ended:
            part = self._ended.popleft()
            self._running.discard(part)
            if part.has_place:
                part.has_place = False
                leave_place(self._attempt, part)
            if part in self._dropped:
                self._dropped.discard(part)
                self._free.append(part.memory)
            ended.append(part)
        return ended

    def has_memory(self) -> bool:
        """Return whether there is memory for a further part, after it was mapped if need be."""
        if not self._free and self._unmapped:
            try:
                self._free.append(mmap.mmap(-1, SIZE))
                self._unmapped -= 1
            except OSError:
                # The system grants no more. What there is will do.
                self._unmapped = 0
        return bool(self._free)

    def add(self, first: int, end: int) -> Part:
        """Return a new part, behind all others, for which there is memory.

        Args:
            first: The position of its first byte.
            end: The position behind its last byte.
        """
        part = Part(first, end, self._free.pop())
        self.parts.append(part)
        self.front = end
        return part

    def start(self, part: Part, has_stream: bool) -> bool:
        """Have a thread fetch a part.

        Args:
            part: The part.
            has_stream: The thread of the download reads a connection, too.

        Returns:
            Whether there was a place at the host, and a thread.
        """
        # The place of the run itself is for the stream, or else for one of the parts.
        if has_stream or any(not each.has_place for each in self._running):
            if not take_place(self._attempt, part, self._fetcher.hosts):
                return False
            part.has_place = True
        part.is_ended = False
        part.token = Cancellation(self._token)
        self._running.add(part)
        try:
            self._workers.run(partial(copy_context().run, self._fetch, part))
        except RuntimeError:
            part.error = DownloadFailed("the system can't start another thread")
            part.error.local = True
            part.failures += 1
            part.is_ended = True
            self._ended.append(part)
            self.collect()
            return False
        return True

    def drop(self, part: Part) -> None:
        """Forget a part that isn't needed any more.

        Args:
            part: The part.
        """
        part.token.cancel("the part isn't needed any more")
        self.parts.remove(part)
        if part in self._running:
            self._dropped.add(part)
        else:
            self._free.append(part.memory)

    def finish(self) -> None:
        """Forget the first part, all of which was handed on."""
        self._free.append(self.parts.popleft().memory)

    def wait(self, part: Part, seconds: float) -> None:
        """Wait until a part has brought something, or the fetching of one has ended.

        Args:
            part: The part, which is the first one.
            seconds: The longest time (seconds).

        Raises:
            Cancelled: The work of the caller was cancelled.
        """
        self._awaited, waiter = part, Waiter()
        self._waiter = waiter
        self._token.attach(waiter)
        try:
            # Look again: the other thread may have acted before it could see the waiter.
            waiter.wait(0.0 if part.received > part.handed or self._ended else seconds)
        finally:
            self._token.detach(waiter)
            self._waiter = self._awaited = None
        self._token.check()

    def close(self) -> None:
        """End all threads, and wait until they have."""
        self._token.cancel("the attempt has ended")
        self._token.close()
        self._workers.stop()
        self._workers.join(_END)
        # Also those whose threads didn't end in time.
        self._ended.extend(self._running)
        self.collect()

    def _fetch(self, part: Part) -> None:
        """Fetch a part. This runs in a thread of its own."""
        part.fetch(self._fetcher, self._block, self._came)
        part.token.close()
        part.is_ended = True
        self._ended.append(part)
        self._wake()

    def _came(self, part: Part) -> None:
        if self._awaited is part:
            self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            waiter.wake()


class Reader:
    """Brings the content of a file in order, over one connection or several."""

    def __init__(
        self, download: Options, attempt: Attempt, reply: requests.Response, origin: Origin
    ) -> None:
        """Begin with the reply to the first request.

        Args:
            download: The download.
            attempt: The attempt.
            reply: The reply, with its body unread.
            origin: Where the parts come from.
        """
        self._most, self._block = download.parts, download.BLOCK
        self._total, self._position = origin.total, attempt.position
        self._fetcher = Fetcher(download, attempt, origin)
        self._team = Team(self._fetcher, attempt, self._most, min(self._block, _READ))
        self._trip = reply.elapsed.total_seconds()
        self._ramp = Ramp(self._most, time.monotonic(), self._trip, SIZE)
        # How long this thread has read or waited, and when to plan again.
        self._waited = self._due = 0.0
        self._attempt, self._longest = attempt, download.retry_after_max
        # The connection that this thread reads, how much it brought, and how often it has failed.
        self._stream: requests.Response | None = reply
        self._read_size = 0
        self._failures = 0
        # The parts that failed and are to be fetched again.
        self._failed: list[Part] = []

    def buffers(self) -> Iterator[bytes]:
        """Yield the content, from the position of the attempt to its end.

        Raises:
            DownloadFailed: A part failed too often.
            Cancelled: The run was cancelled.
        """
        while self._position < self._total:
            self._plan()
            part = self._head()
            began = time.monotonic()
            buffer = self._read() if part is None else self._take(part)
            self._waited += time.monotonic() - began
            if buffer:
                self._position += len(buffer)
                yield buffer
        self._end_stream()

    def close(self) -> None:
        """End all threads and connections."""
        self._team.close()
        if self._stream is not None:
            self._stream.close()

    # What is fetched next.

    def _plan(self) -> None:
        """Give the threads work."""
        now, team, ramp = time.monotonic(), self._team, self._ramp
        ended = team.collect()
        if not ended and now < self._due:
            return
        self._due = now + _LOOK
        for part in ended:
            if part not in team.parts:
                continue
            if part.bug is not None:
                raise part.bug
            if part.failures:
                self._note_failure(part, now)
        active = team.active() + (self._stream is not None)
        received = self._position + team.buffered()
        ramp.update(now, Progress(received, self._waited - time.thread_time()), active)
        while team.running + (self._stream is not None) < max(ramp.wanted, bool(self._failed)):
            following = self._next()
            if following is None or not self._start(following, now):
                break

    def _next(self) -> Part | None:
        """Return the part to fetch next; None if there is none, or no room for it."""
        if self._failed:
            return self._failed.pop(0)
        team, ramp = self._team, self._ramp
        if ramp.wanted == 1:
            return None
        first = max(team.front, self._position)
        if self._stream is not None and not team.parts:
            # The stream goes on meanwhile. Both are to arrive there at about the same time.
            ahead = max(SIZE, int(ramp.speed * self._trip * _AHEAD_TRIPS))
            first = max(first, self._position + ahead)
        if first >= self._total or not team.has_memory():
            return None
        return team.add(first, min(first + SIZE, self._total))

    def _start(self, part: Part, now: float) -> bool:
        team, ramp = self._team, self._ramp
        if team.start(part, self._stream is not None):
            return True
        ramp.refuse(now, team.running + (self._stream is not None))
        self._failed.insert(0, part)
        return False

    def _note_failure(self, part: Part, now: float) -> None:
        """Have a part fetched again, unless the stream gets it, too."""
        error, team, ramp = part.error, self._team, self._ramp
        is_last = part.failures >= FAILURES or self._is_too_late(error)
        has_stream = self._stream is not None
        if error.refused or error.retry_after or (is_last and has_stream):
            ramp.refuse(now, team.running + has_stream)
        if has_stream and (is_last or ramp.wanted == 1):
            # The stream gets it, too.
            for each in [each for each in team.parts if each.first >= part.first]:
                self._drop(each)
            team.front = part.first
        elif is_last:
            part.failures = FAILURES
        else:
            self._failed.append(part)

    def _is_too_late(self, error: DownloadError) -> bool:
        """Whether the server wants to be asked again after too long a time."""
        return (error.retry_after or 0.0) > self._longest

    def _drop(self, part: Part) -> None:
        if part in self._failed:
            self._failed.remove(part)
        self._team.drop(part)

    # What is handed on next.

    def _head(self) -> Part | None:
        """Return the part that begins at the position; None where the stream is read."""
        team = self._team
        while team.parts:
            part = team.parts[0]
            if part.first + part.handed > self._position:
                return None
            if part.first + part.handed == self._position and (
                self._stream is None or part.received * 2 >= part.end - part.first
            ):
                if self._stream is not None:
                    self._end_stream()
                return part
            # The stream has been faster.
            self._ramp.give_up(time.monotonic())
            self._drop(part)
        return None

    def _take(self, part: Part) -> bytes:
        """Return the next bytes of a part; b"" after a while without any."""
        team = self._team
        if part.received == part.handed:
            if part.is_ended and part.failures >= FAILURES:
                raise _final(part.error, part.first, part.end)
            team.wait(part, _LOOK)
        buffer = part.read(self._block)
        if part.first + part.handed == part.end:
            team.finish()
            # There is room for another one.
            self._due = 0.0
        return buffer

    def _read(self) -> bytes:
        """Return the next bytes of the stream; b"" if it has failed."""
        team = self._team
        end = team.parts[0].first if team.parts else self._total
        try:
            if self._stream is None:
                self._read_size = 0
                self._stream = self._fetcher.ask(
                    self._position, self._total, self._failures > 0, self._fetcher.trace
                )
            buffer = self._fetcher.take(self._stream, min(self._block, end - self._position))
        except DownloadFailed as error:
            self._stream_failed(error)
            return b""
        if not buffer:
            self._stream_failed(DownloadFailed(_SHORT))
            return b""
        self._read_size += len(buffer)
        return buffer

    def _stream_failed(self, error: DownloadFailed) -> None:
        """Have the rest of the stream asked for again, or raise."""
        is_new = self._read_size >= ADVANCE
        if self._fetcher.trace is not None:
            self._fetcher.trace.end(error)
        self._end_stream()
        self._failures = 1 if is_new else self._failures + 1
        if self._failures >= FAILURES or self._is_too_late(error):
            raise _final(error, self._position, self._total)
        if (delay := _delay(error, self._failures)) > 0:
            self._attempt.wait_by(partial((current() or Cancellation()).wait, delay))

    def _end_stream(self) -> None:
        """Close the stream, and check that nobody else has read of it."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        if self._fetcher.trace is not None:
            self._fetcher.trace.end()
        stream.close()
        if not was_read_alone(stream, self._read_size):
            raise DownloadFailed(READ_BY_OTHERS)


def _final(error: DownloadError, first: int, end: int) -> DownloadError:
    """Return what to raise if a range failed too often."""
    error.reason = f"bytes {first} to {end - 1} can't be had: {error.reason}"
    # The next attempt asks for all that is missing in one request.
    error.transient, error.refused = True, False
    return error
