"""One part of a file: the request for a range, the checks of its reply, and its bytes.

See :mod:`.parts` for how parts make a file.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import requests

from ..engine.attempt import Attempt
from ..engine.breaker import Breaker
from ..engine.host import host_of
from ..engine.tracing import Requests, branch
from ..error import DownloadError, DownloadFailed
from ..net.url import parse
from ..waiting.cancellation import Cancellation, Cancelled, current, scope
from . import failure, resume
from .exchange import Exchange
from .options import Options
from .redirect import SCHEMES
from .splice import Beginning
from .wire.reply import length, of

ADVANCE = 256 * 1024
"""If a request got this many bytes before it failed, the count of failures starts anew."""

PAUSE = 0.1
"""The back-off before the third request for a part (seconds). It doubles with each further one.

The second request is sent at once.
"""

SHORT = "the content is shorter than the server said"
"""The reason if a body ends too early."""


class Origin(NamedTuple):
    """The file of the parts, and a source to request them from.

    Attributes:
        source (str): The URL of the attempt, or one of another source.
        urls (Sequence[str]): The URLs that were requested for the first reply, with redirects.
        version (resume.Version | Beginning): The version that the replies must match.
        total (int): The size of the file (bytes).
    """

    source: str
    urls: Sequence[str]
    version: resume.Version | Beginning
    total: int


class Fetcher:
    """Sends requests for ranges of a file to one source, and checks the replies. Thread-safe.

    Attributes:
        source (str): The URL of the source.
        is_helper (bool): Whether the attempt asks another source than this one.
        trace (Requests | None): Traces the requests that the download's thread sends; None for no
            tracing.
    """

    def __init__(self, download: Options, attempt: Attempt, origin: Origin) -> None:
        """Create a fetcher.

        Args:
            download: The download.
            attempt: The attempt.
            origin: Where the file comes from.
        """
        self._download, self._attempt, self._origin = download, attempt, origin
        self.trace, self.source = attempt.trace, origin.source
        self.is_helper = origin.source != attempt.source

    def ask(
        self, first: int, end: int, is_again: bool, trace: Requests | None
    ) -> requests.Response:
        """Return a reply that brings a range, with its body unread.

        Args:
            first: The position of its first byte.
            end: The position behind its last byte.
            is_again: Whether a request for it failed before. Then the first URL is asked again,
                because the URL that it redirected to may have expired.
            trace: Traces the requests of the calling thread; None for no tracing.

        Raises:
            DownloadFailed: The request failed, or the reply isn't this range of this version.
            Cancelled: The work of the caller was cancelled.
        """
        where = self._origin
        headers = where.version.headers(first, end)
        exchange = Exchange(
            self._download,
            headers,
            self._before,
            self._attempt.connect_timeout,
            where.source,
            self._attempt.limits,
            trace,
        )
        reply = exchange.run(() if is_again else where.urls)
        status = reply.status_code
        # Only a reply with a length shows at once that its range is too long or too short.
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
        raise failure.from_reply(reply, self._download)

    def take(self, reply: requests.Response, size: int) -> bytes:
        """Return available bytes of a reply's body; wait for the first one; b"" at the end.

        Args:
            reply: The reply.
            size: The most bytes to return.

        Raises:
            DownloadFailed: The connection failed.
            Cancelled: The work of the caller was cancelled.
        """
        try:
            return of(reply).take(size)
        except failure.ANTICIPATED as error:
            secrets = self._origin.source, reply.url or ""
            raise failure.from_exception(error, *secrets) from error

    def is_admitted(self) -> bool:
        """Return whether a part may be requested: not of a mirror whose host seems down."""
        try:
            if self.is_helper:
                self._breaker.admit()
        except DownloadFailed:
            return False
        return True

    def succeeded(self) -> None:
        """Tell the circuit breaker of a mirror's host that a part was fetched.

        A part that failed isn't counted there, because other sources bring it.
        """
        if self.is_helper:
            self._breaker.succeeded()

    @property
    def _breaker(self) -> Breaker:
        return host_of(self._download.context, parse(self.source, SCHEMES).origin).breaker

    @property
    def hosts(self) -> list[Hashable]:
        """The origins of the URLs that were asked for the first reply."""
        return list(dict.fromkeys(parse(url, SCHEMES).origin for url in self._origin.urls))

    def _before(self, origin: Hashable) -> None:
        limiter, token = self._download.rate_limiter, current() or Cancellation()
        token.check()
        limits = self._attempt.limits
        if self.is_helper and origin not in self.hosts and any(each.per_host for each in limits):
            failed = DownloadFailed("it redirects to a host where the part has no place")
            failed.local = True
            raise failed
        if limiter is not None and (pause := limiter.delay()) > 0:
            token.wait(pause)


class Part:
    """A range of the file that a thread fetches into memory.

    Until ``is_ended`` is set, only that thread sets the attributes, except ``handed`` and those of
    :meth:`measure`. The download's thread reads the bytes that have come.

    Attributes:
        first (int): The position of its first byte.
        end (int): The position behind its last byte.
        memory (mmap.mmap): The buffer for the bytes.
        received (int): How much has come (bytes).
        handed (int): How much was handed on to the writer (bytes).
        fetcher (Fetcher): Sends the request, to the source that was chosen last.
        began (float): When the last fetch was started (``time.monotonic()``).
        kept (int): How much had come before it (bytes).
        seen (int): How much had come when the download's thread looked last (bytes).
        spent (float): How long the last fetch has taken, as :meth:`measure` counts it (seconds).
        quiet (float): How long it has brought nothing (seconds).
        is_outdone (bool): Whether, since its last bytes, others brought some, or had no part left
            to fetch.
        is_joined (bool): Whether another source than that of the attempt brought any of it.
        token (Cancellation): Cancels the fetch.
        failures (int): How often it has failed in a row.
        error (DownloadError): The last failure. It counts only if ``failures`` isn't 0.
        bug (BaseException | None): An exception other than DownloadError. The download's thread
            raises it.
        is_ended (bool): Whether no thread fetches it now.
        has_place (bool): Whether it counts as a connection of its own in ``Limits.per_host``.
    """

    def __init__(self, first: int, end: int, memory: mmap.mmap, fetcher: Fetcher) -> None:
        """Create a part of which nothing was fetched.

        Args:
            first: The position of its first byte.
            end: The position behind its last byte.
            memory: The buffer for the bytes.
            fetcher: Sends the request.
        """
        self.fetcher, self.began, self.is_joined = fetcher, 0.0, False
        self.first, self.end, self.memory = first, end, memory
        self.received = self.handed = self.kept = self.seen = 0
        self.spent, self.quiet, self.is_outdone = 0.0, 0.0, False
        self.token = Cancellation()
        self.failures = 0
        self.error: DownloadError = DownloadFailed(SHORT)
        self.bug: BaseException | None = None
        self.is_ended = self.has_place = False

    def begin(self, now: float, token: Cancellation) -> None:
        """Note that a thread is about to fetch what is missing.

        Args:
            now: The time (seconds).
            token: Cancels the fetch.
        """
        self.is_ended, self.token, self.began = False, token, now
        self.kept = self.seen = self.received
        self.spent, self.quiet, self.is_outdone = 0.0, 0.0, False

    def measure(self, seconds: float, is_outdone: bool) -> None:
        """Count the time of the fetch, and the time without new bytes.

        Args:
            seconds: How much time to count since the last call (seconds).
            is_outdone: Whether others brought bytes since then, or had no part to fetch.
        """
        received = self.received
        self.spent += seconds
        if received > self.seen:
            self.quiet, self.is_outdone = 0.0, False
        else:
            self.quiet, self.is_outdone = self.quiet + seconds, self.is_outdone or is_outdone
        self.seen = received

    def read(self, size: int) -> bytes:
        """Return received bytes that were not handed on yet.

        Args:
            size: The most bytes to return.
        """
        data = self.memory[self.handed : min(self.received, self.handed + size)]
        self.handed += len(data)
        return data

    def fetch(self, block: int, came: Callable[[Part], object]) -> None:
        """Fetch the bytes that are missing. Errors are kept in ``error`` and ``bug``, not raised.

        Args:
            block: The largest buffer (bytes).
            came: Called with this part after each buffer that came.
        """
        before = self.received
        try:
            with scope(self.token), branch(self.fetcher.trace) as trace:
                self.token.check()
                if (pause := delay(self.error, self.failures)) > 0:
                    self.token.wait(pause)
                self._fetch(block, came, trace)
                self.failures = 0
        except DownloadError as error:
            if self.received - before >= ADVANCE:
                self.failures = 0
            self.failures += 1
            self.error = error.with_traceback(None)
        except Cancelled:
            # The team has dropped the part or abandoned its source.
            self.failures += 1
        except BaseException as error:  # noqa: BLE001 - the thread of the download raises it
            self.bug = error.with_traceback(None)

    def _fetch(self, block: int, came: Callable[[Part], object], trace: Requests | None) -> None:
        fetcher = self.fetcher
        reply = fetcher.ask(self.first + self.received, self.end, self.failures > 0, trace)
        try:
            while left := self.end - self.first - self.received:
                buffer = fetcher.take(reply, min(block, left))
                if not buffer:
                    raise DownloadFailed(SHORT)
                received = self.received + len(buffer)
                self.memory[self.received : received] = buffer
                if fetcher.is_helper:
                    self.is_joined = True
                # Only after the copy: the download's thread reads up to this position.
                self.received = received
                came(self)
        finally:
            # The connection goes back to the pool if the body was read to its end.
            reply.close()


def delay(error: DownloadError, failures: int) -> float:
    """Return the back-off before a range is requested again (seconds).

    Args:
        error: The last failure.
        failures: How often it has failed in a row.
    """
    if not failures:
        return 0.0
    return max(error.retry_after or 0.0, PAUSE * 2.0 ** (failures - 2) if failures > 1 else 0.0)
