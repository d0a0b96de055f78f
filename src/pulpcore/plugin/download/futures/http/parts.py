"""One file in parts, over several connections (``HttpDownload.parts``).

The parts are a read-ahead. The download's thread still hands the bytes on in order, so writers and
validations see nothing new.

1. The download's thread reads the reply to the ordinary request. This is the stream.
2. As long as the total throughput grows, more threads fetch parts that lie ahead into memory, with
   ``Range`` and ``If-Range``.
3. When the stream reaches a part, its connection is closed, and the part is handed on. From then on
   all connections fetch parts.
4. If less than half of that part has come, the part is dropped instead, and the stream goes on.
5. When one connection is enough again, it becomes a new stream.

Where an enforced digest checks the whole, parts are also fetched from the mirrors that were not
asked yet: each part from the source with the fewest connections. A mirror that fails, stalls, or is
much slower than the source of the attempt, gets no more parts of this file. The other sources bring
what is missing.

The reply for each part passes the same checks as the reply that resumes a broken transfer: status,
Content-Range, validator and URL (:meth:`.resume.Version.is_continued`).
"""

from __future__ import annotations

import mmap
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import copy_context
from functools import partial

import requests

from ..engine.attempt import Attempt
from ..engine.limited import leave_place, take_place
from ..engine.ramp import Progress, Ramp
from ..error import DownloadError, DownloadFailed
from ..net.used_up import used_up
from ..waiting.atomic import Waiter
from ..waiting.cancellation import Cancellation, current
from ..waiting.threads import Workers
from . import resume
from .options import Options
from .part import ADVANCE, SHORT, Fetcher, Origin, Part, delay
from .splice import Beginning
from .wire.reply import READ_BY_OTHERS, header, length, of

SIZE = 8 * 1024 * 1024
"""The size of a part (bytes)."""

SMALLEST = 2 * SIZE
"""The size of the smallest file that is fetched in parts (bytes)."""

FAILURES = 4
"""The attempt fails when a part or the stream has failed this many times in a row."""

_AHEAD_TRIPS = 8
"""How far ahead of the stream the first part begins (round trips at the present speed).

TCP slow start makes a new connection slow at first. The distance gives it time to catch up.
"""

_SLOW = 2.0
"""A part from a mirror may take so many times as long as one from the source of the attempt."""

_PATIENCE = 0.25
"""How long a part from a mirror may take in any case (seconds)."""

_SILENCE = 0.25
"""How long a mirror may bring nothing of the part that is handed on next (seconds).

The longer of this and :data:`_TRIPS` holds. :meth:`Team.measure` says what time counts.
"""

_TRIPS = 4
"""The same in round trips, because the first bytes need several of them."""

_STEP = 0.05
"""The most time to count between two looks (seconds).

A pause of the whole machine, or of a writer, is no silence of a mirror.
"""

_LOOK = 0.02
"""How often the download's thread checks which parts have ended and starts more (seconds)."""

_END = 2.0
"""How long to wait for the threads at the end (seconds). A DNS look-up can't be interrupted."""

_READ = 64 * 1024
"""The most bytes that a thread reads into a part at a time.

Each thread has a heap of its own (an arena of glibc). It never shrinks below the largest buffer
that the thread has used.
"""


def origin(
    reply: requests.Response,
    urls: Sequence[str],
    source: str,
    known: resume.Version | Beginning | None,
) -> Origin | None:
    """Return what is needed to fetch a file in parts; None if that can't be done.

    The server must support ranges, the size must be known and at least :data:`SMALLEST`, and the
    content must not be coded. Unless several sources brought what is here, there must be a strong
    validator, too.

    Args:
        reply: The reply to the first request.
        urls: The URLs that were asked for it.
        source: The URL that the attempt asks.
        known: What is here of the file; None if nothing can be checked by it.
    """
    coding = known.coding if isinstance(known, resume.Version) else ""
    if known is None or coding or header(reply, "content-encoding"):
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


class Team:
    """The threads that fetch parts of one file, and the queue of the parts.

    Only the download's thread calls it. That may be the main thread, where KeyboardInterrupt may be
    raised between any two bytecodes. So it shares no lock with the other threads: they append to a
    deque, and then wake it.

    Attributes:
        fetchers (list[Fetcher]): One for each source that may be asked: first that of the attempt.
        parts (deque[Part]): The parts that were not handed on completely, in order of position.
        front (int): The position behind the last part.
    """

    def __init__(self, fetchers: list[Fetcher], attempt: Attempt, most: int, block: int) -> None:
        """Create a team without threads.

        Args:
            fetchers: One for each source: first that of the attempt.
            attempt: The attempt.
            most: The most threads.
            block: The largest buffer (bytes).
        """
        self.fetchers, self._attempt, self._block = fetchers, attempt, block
        self.parts: deque[Part] = deque()
        self.front = 0
        # Buffers from mmap, not from malloc: the glibc arena of each thread would keep the memory
        # of the most parts that were ever allocated in it.
        self._free: list[mmap.mmap] = []
        self._unmapped = most
        # Parts that aren't needed any more, but whose threads may still write to the buffers.
        self._dropped: set[Part] = set()
        self._running: set[Part] = set()
        self._ended: deque[Part] = deque()
        # The part that the download's thread waits for, and the waiter that wakes it.
        self._awaited: Part | None = None
        self._waiter: Waiter | None = None
        self._token = Cancellation(current())
        self._workers = Workers(most, "futures_part")

    @property
    def running(self) -> int:
        """The number of parts that are being fetched."""
        return len(self._running)

    def active(self) -> int:
        """Return the number of running fetches whose parts have received bytes."""
        return sum(1 for part in self._running if part.received)

    def measure(self, seconds: float, has_stream: bool, heard: Iterable[Fetcher]) -> None:
        """Count for how long each source has brought nothing while another one brought bytes.

        If none brings any, the network or this machine pauses, and no time counts. But time does
        count while the source of the attempt fetches nothing: it could fetch the part instead.

        Args:
            seconds: The time since the last call (seconds).
            has_stream: Whether the download's thread reads the stream.
            heard: The sources of the stream and of fetches that have ended, if these brought bytes.
        """
        is_idle = not has_stream and all(each.fetcher.is_helper for each in self._running)
        came = {each.fetcher for each in self._running if each.received > each.seen}.union(heard)
        asked = {each.fetcher for each in self._running}
        for part in self._running:
            others = asked - {part.fetcher}
            is_outdone = bool(came - {part.fetcher}) or (is_idle and not others)
            part.measure(seconds if is_idle or is_outdone else 0.0, is_outdone)

    def buffered(self) -> int:
        """Return how much has been received and not handed on (bytes)."""
        return sum(part.received - part.handed for part in self.parts)

    def collect(self) -> list[Part]:
        """Return the parts whose fetching has ended since the last call."""
        ended = []
        while self._ended:
            part = self._ended.popleft()
            self._release(part)
            if part in self._dropped:
                self._dropped.discard(part)
                self._free.append(part.memory)
            ended.append(part)
        return ended

    def has_memory(self) -> bool:
        """Return whether there is a free buffer for another part. Map one if needed."""
        if not self._free and self._unmapped:
            try:
                self._free.append(mmap.mmap(-1, SIZE))
                self._unmapped -= 1
            except OSError:
                # The system refuses more memory, so the present buffers are all there will be.
                self._unmapped = 0
        return bool(self._free)

    def add(self, first: int, end: int) -> Part:
        """Add a part behind all others, and return it. :meth:`has_memory` must have returned True.

        Args:
            first: The position of its first byte.
            end: The position behind its last byte.
        """
        part = Part(first, end, self._free.pop(), self.fetchers[0])
        self.parts.append(part)
        self.front = end
        return part

    def start(self, part: Part, has_stream: bool) -> bool:
        """Have a thread fetch a part.

        Args:
            part: The part.
            has_stream: Whether the download's thread reads the stream, too.

        Returns:
            Whether it was started. False if the limits allow no further connection to any source,
            or the system no further thread.
        """
        if not any(self._enter(part, each, has_stream) for each in self._by_load(part, has_stream)):
            return False
        part.begin(time.monotonic(), Cancellation(self._token))
        self._running.add(part)
        try:
            self._workers.run(partial(copy_context().run, self._fetch, part))
        except RuntimeError:
            part.error = DownloadFailed("the system can't start another thread")
            part.error.local = True
            part.failures += 1
            part.is_ended = True
            self._release(part)
            return False
        return True

    def _release(self, part: Part) -> None:
        """Note that no thread fetches a part, and give its place at the hosts back."""
        self._running.discard(part)
        if part.has_place:
            part.has_place = False
            leave_place(self._attempt, part)

    def _by_load(self, part: Part, has_stream: bool) -> list[Fetcher]:
        """Return the sources in the order to ask: the fewest connections first.

        The source at which the part has just failed comes last.
        """
        loads = Counter(each.fetcher for each in self._running)
        loads[self.fetchers[0]] += has_stream
        return sorted(
            self.fetchers,
            key=lambda each: (part.failures > 0 and each is part.fetcher, loads[each]),
        )

    def _enter(self, part: Part, fetcher: Fetcher, has_stream: bool) -> bool:
        """Take a place for a part at a source, if one is free and its host doesn't seem down."""
        # The run has one place by ``Limits.per_host`` at the source of its attempt. The stream uses
        # it, or else one part.
        needs_place = (
            fetcher.is_helper or has_stream or any(not each.has_place for each in self._running)
        )
        if needs_place and not take_place(self._attempt, part, fetcher.hosts):
            return False
        if not fetcher.is_admitted():
            leave_place(self._attempt, part)
            return False
        part.fetcher, part.has_place = fetcher, needs_place
        return True

    def give_up(self, fetcher: Fetcher) -> None:
        """Fetch no more parts from a source that isn't that of the attempt.

        Args:
            fetcher: Sends the requests to that source.
        """
        if fetcher in self.fetchers:
            self.fetchers.remove(fetcher)
        for part in self._running:
            if part.fetcher is fetcher:
                part.token.cancel("its source is given up")

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
        """Remove the first part, which was handed on completely. Its buffer is used again."""
        self._free.append(self.parts.popleft().memory)

    def wait(self, part: Part, seconds: float) -> None:
        """Wait until the part has bytes to hand on, or any fetch has ended.

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
            # Check again: bytes may have come before the other thread could see the waiter.
            waiter.wait(0.0 if part.received > part.handed or self._ended else seconds)
        finally:
            self._token.detach(waiter)
            self._waiter = self._awaited = None
        self._token.check()

    def close(self) -> None:
        """Cancel all fetches, and wait up to :data:`_END` for the threads."""
        self._token.cancel("the attempt has ended")
        self._token.close()
        self._workers.stop()
        self._workers.join(_END)
        # Threads that didn't end in time must not keep their places at the host.
        self._ended.extend(self._running)
        self.collect()

    def _fetch(self, part: Part) -> None:
        """Fetch a part. This runs in a thread of its own."""
        part.fetch(self._block, self._came)
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
    """Yields the content of a file in order, fetched over one connection or several.

    Attributes:
        source (str): The URL of the source that brought the last buffer.
    """

    def __init__(
        self,
        download: Options,
        attempt: Attempt,
        reply: requests.Response,
        origins: Sequence[Origin],
        join: Callable[[], object],
    ) -> None:
        """Begin with the reply to the first request.

        Args:
            download: The download.
            attempt: The attempt.
            reply: The reply, with its body unread.
            origins: Where the parts come from: first the source of the attempt.
            join: Called before the first bytes of another source are handed on.
        """
        self._most, self._block = download.parts, download.BLOCK
        self._total, self._position = origins[0].total, attempt.position
        fetchers = [Fetcher(download, attempt, origin) for origin in origins]
        self._fetcher, self._join = fetchers[0], join
        self.source = self._fetcher.source
        # How long the last part from the source of the attempt took (seconds).
        self._usual: float | None = None
        self._team = Team(fetchers, attempt, self._most, min(self._block, _READ))
        self._trip = reply.elapsed.total_seconds()
        self._ramp = Ramp(self._most, time.monotonic(), self._trip, SIZE)
        # The time that this thread has spent in reading and waiting, and when to plan again.
        self._waited = self._due = 0.0
        # When the sources were measured last, and whether the stream has brought bytes since.
        self._looked, self._has_streamed = time.monotonic(), False
        self._patience = max(_SILENCE, _TRIPS * self._trip)
        self._attempt, self._longest = attempt, download.retry_after_max
        # The reply that this thread reads, how much it brought, and its failures in a row.
        self._stream: requests.Response | None = reply
        self._read_size = 0
        self._failures = 0
        # The parts that failed and are to be fetched again.
        self._failed: list[Part] = []

    def buffers(self) -> Iterator[bytes]:
        """Yield the content, from the position of the attempt to its end.

        Raises:
            DownloadError: A part or the stream failed too often, or a handler read from the reply.
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
        """End the threads, and close the stream."""
        self._team.close()
        if self._stream is not None:
            self._stream.close()

    # What is fetched next.

    def _plan(self) -> None:
        """Update the number of connections, and start fetches until there are that many."""
        now, team, ramp = time.monotonic(), self._team, self._ramp
        ended = team.collect()
        if not ended and now < self._due:
            return
        self._due = now + _LOOK
        self._measure(now, ended)
        for part in ended:
            came = part.received - part.kept
            if came and not (part.failures or part.fetcher.is_helper):
                self._usual = (now - part.began) * SIZE / came
            if came and not part.failures:
                part.fetcher.succeeded()
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

    def _measure(self, now: float, ended: Iterable[Part]) -> None:
        """Count for how long the mirrors have brought nothing."""
        heard = {part.fetcher for part in ended if part.received > part.seen}
        if self._has_streamed:
            heard.add(self._fetcher)
        seconds = min(now - self._looked, _STEP)
        self._looked, self._has_streamed = now, False
        self._team.measure(seconds, self._stream is not None, heard)

    def _next(self) -> Part | None:
        """Return the part to fetch next; None if there is none, or no memory for it."""
        if self._failed:
            return self._failed.pop(0)
        team, ramp = self._team, self._ramp
        if ramp.wanted == 1:
            return None
        first = max(team.front, self._position)
        if self._stream is not None and not team.parts:
            # The part should be complete at about the time when the stream reaches it.
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
        """Schedule a failed part again, or leave it to the stream."""
        error, team, ramp = part.error, self._team, self._ramp
        if part.fetcher.is_helper:
            self._give_up(part, now)
            part.failures = 0
            self._failed.append(part)
            return
        is_last = part.failures >= FAILURES or self._is_too_late(error)
        has_stream = self._stream is not None
        if error.refused or error.retry_after or (is_last and has_stream):
            ramp.refuse(now, team.running + has_stream)
        if has_stream and (is_last or ramp.wanted == 1):
            # The stream will read these bytes itself.
            for each in [each for each in team.parts if each.first >= part.first]:
                self._drop(each)
            team.front = part.first
        elif is_last:
            part.failures = FAILURES
        else:
            self._failed.append(part)

    def _is_too_late(self, error: DownloadError) -> bool:
        """Whether the server's Retry-After is longer than ``retry_after_max``."""
        return (error.retry_after or 0.0) > self._longest

    def _give_up(self, part: Part, now: float) -> None:
        """Fetch no more parts from the source of a part, which isn't that of the attempt.

        Other files are told if it failed, or stalled in the part while others did better, but not
        if it is only slow or far away.
        """
        fetcher, tour = part.fetcher, self._attempt.tour
        error, seconds = (part.error, now - part.began) if part.failures else (None, part.quiet)
        has_stalled = self._is_silent(part) and part.received > part.kept and part.is_outdone
        if error is None and has_stalled:
            error = DownloadFailed("it brought no more bytes")
        if (
            error is not None
            and fetcher in self._team.fetchers
            and tour is not None
            and used_up(error) is None
        ):
            tour.blame(fetcher.source, error, seconds)
        self._team.give_up(fetcher)

    def _is_silent(self, part: Part) -> bool:
        """Whether the source of a part has stalled."""
        return part.quiet > self._patience

    def _is_slow(self, part: Part) -> bool:
        """Whether the source of a part is much slower than that of the attempt."""
        return self._usual is not None and part.spent > max(_SLOW * self._usual, _PATIENCE)

    def _drop(self, part: Part) -> None:
        if part in self._failed:
            self._failed.remove(part)
        self._team.drop(part)

    # Handing bytes on, in order.

    def _head(self) -> Part | None:
        """Return the part to hand on next; None if the stream is to be read."""
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
            # The stream got here, or past here, before the part had half of its bytes.
            if part.fetcher.is_helper:
                self._give_up(part, time.monotonic())
            else:
                self._ramp.give_up(time.monotonic())
            self._drop(part)
        return None

    def _take(self, part: Part) -> bytes:
        """Return the next bytes of a part; b"" if none came within :data:`_LOOK`.

        Raises:
            DownloadError: The part has failed too often.
            Cancelled: The run was cancelled.
        """
        team = self._team
        if part.received == part.handed:
            if part.is_ended and part.failures >= FAILURES:
                raise _final(part.error, part.first, part.end)
            if (
                part.fetcher.is_helper
                and not part.is_ended
                and (self._is_silent(part) or self._is_slow(part))
            ):
                self._give_up(part, time.monotonic())
            team.wait(part, _LOOK)
        buffer = part.read(self._block)
        if buffer:
            self.source = part.fetcher.source
            if part.is_joined:
                self._join()
            if part.fetcher.is_helper and (tour := self._attempt.tour) is not None:
                self._attempt.helped += len(buffer)
                tour.helped(self.source)
        if part.first + part.handed == part.end:
            team.finish()
            # A buffer is free, so plan at once.
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
            self._stream_failed(DownloadFailed(SHORT))
            return b""
        self._read_size += len(buffer)
        self._has_streamed = True
        self.source = self._fetcher.source
        return buffer

    def _stream_failed(self, error: DownloadFailed) -> None:
        """Close the stream that failed, and wait for the back-off. Raise if it failed too often."""
        is_new = self._read_size >= ADVANCE
        if self._fetcher.trace is not None:
            self._fetcher.trace.end(error)
        self._end_stream()
        self._failures = 1 if is_new else self._failures + 1
        if self._failures >= FAILURES or self._is_too_late(error):
            raise _final(error, self._position, self._total)
        if (pause := delay(error, self._failures)) > 0:
            self._attempt.wait_by(partial((current() or Cancellation()).wait, pause))

    def _end_stream(self) -> None:
        """Close the stream.

        Raises:
            DownloadFailed: Somebody else, such as a handler, has read from its body.
        """
        stream, self._stream = self._stream, None
        if stream is None:
            return
        if self._fetcher.trace is not None:
            self._fetcher.trace.end()
        stream.close()
        if not of(stream).was_read_alone(self._read_size):
            raise DownloadFailed(READ_BY_OTHERS)


def _final(error: DownloadError, first: int, end: int) -> DownloadError:
    """Return the error of the attempt, for a range that failed too often."""
    error.reason = f"bytes {first} to {end - 1} could not be fetched: {error.reason}"
    # Transient, because the next attempt asks for all missing bytes in one request.
    error.transient, error.refused = True, False
    return error
