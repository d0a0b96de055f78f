"""Which requests may be pipelined, and which replies to them count (RFC 9112 section 9.3.2).

A reply doesn't say which request it answers. So only downloads with an expected size and digest are
pipelined. A reply counts if its content has both.
"""

from __future__ import annotations

import functools
import http.client
import logging
import operator
from collections.abc import Hashable, Sequence

import requests

from .. import redact
from ..download import Download
from ..engine.attempt import Attempt
from ..engine.pipeline import Depth, Driver, Health
from ..engine.tracing import Requests, RequestTrace
from ..error import DownloadFailed, transient
from ..net.url import URL
from ..settings import Timeout
from ..storage.digest import blank
from ..validation import DigestValidation, SizeValidation
from . import resume
from .exchange import Exchange
from .options import Options
from .wire.adapter import Destination, Response
from .wire.train import BODY_LIMIT, ROOM, StoredBody, Train

log = logging.getLogger(__name__)

FIRST = 2
"""The number of requests in the first train of a connection, which probes the server."""

EARLY = 2
"""If a connection ends within its first trains, up to this many, that counts against the host."""

PATIENCE = 1.0
"""The second reply of a connection's first train gets at least this time-out (seconds)."""

# Statuses by which a server asks for fewer requests. Pipelining would send refused requests twice.
_REFUSALS = frozenset({requests.codes.too_many_requests, requests.codes.service_unavailable})

# The largest size of the trace headers (bytes): traceparent, and a tracestate of 512 characters
# (W3C Trace Context).
_TRACED = 600

# Methods that decide which request is sent, and how the content is written.
_OURS = frozenset({"__call__", "_send", "_write"})
_methods = operator.attrgetter("_send", "_write")
_functions = operator.attrgetter("_send.__func__", "_write.__func__")
# Headers that make a request conditional, partial or special, or may end the connection.
_SPECIAL = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "range",
        "te",
        "transfer-encoding",
        "upgrade",
    }
)


class Expected:
    """The size and the digests that the content must have."""

    def __init__(self, size: int, digests: Sequence[DigestValidation]) -> None:
        """Create it from validations.

        Args:
            size: The size (bytes).
            digests: The validations of digests.
        """
        self.size = size
        self._digests = digests

    @property
    def digest(self) -> str:
        """The digest that identifies the content (hex)."""
        return self._digests[0].expected

    def has(self, data: bytes) -> bool:
        """Return whether the content has the size and the digests.

        Args:
            data: The content.
        """
        if len(data) != self.size:
            return False
        for validation in self._digests:
            # Not what the validation has seen: the download may have been run before.
            digest = blank(validation.algorithm.name).copy()
            digest.update(data)
            if digest.hexdigest() != validation.expected:
                return False
        return True

    def is_of_another(self, data: bytes, others: Sequence[Expected]) -> bool:
        """Return whether the content belongs to another request of the train.

        Args:
            data: The content.
            others: What the requests of the train expect.
        """
        return any(other.has(data) for other in others if other.digest != self.digest)


class PipelinedRequest:
    """A request of a download that may be in a train.

    Attributes:
        key (Hashable): Only requests with equal keys may be in one train.
        head (bytes): The head of the request.
        size (int): The size of the head (bytes), with room for a trace.
        expected (Expected): What the content must be.
        timeout (float | None): The time-out of each read (seconds).
        health (Health): What is known of the host.
        trace (Requests | None): Traces the requests of the run; None for no tracing.
        traced (RequestTrace | None): The trace of this request, until its reply counts.
    """

    traced: RequestTrace | None = None

    def __init__(
        self,
        download: Options,
        expected: Expected,
        url: URL,
        request: requests.PreparedRequest,
        destination: Destination,
        health: Health,
    ) -> None:
        """Create it from a prepared request.

        Args:
            download: The download.
            expected: What the content must be.
            url: The URL.
            request: The request.
            destination: The server to send it to, with its connection pool.
            health: What is known of the host.

        Raises:
            http.client.HTTPException: The request can't be sent.
        """
        self.expected, self.health = expected, health
        self.timeout = (download.timeout or Timeout()).read
        self.key: Hashable = destination
        self._url, self._request, self._destination = url, request, destination
        self.head = destination.head(request, url)
        self.trace: Requests | None = Attempt.of(download).trace  # type: ignore[arg-type]
        self.size = len(self.head) + (0 if self.trace is None else _TRACED)

    def head_for(self, trace: Requests) -> bytes:
        """Begin the trace of this request, and return the head that carries it.

        Args:
            trace: Traces the requests of the run.
        """
        request, url = self._request, self._url
        self.traced = trace.make(request.method or "", redact.url(url.text), request.headers)
        return self._destination.head(request, url)

    def open(self, depth: Depth, driver: Driver) -> HttpLine | None:
        """Take an idle connection that has answered enough requests with long enough round trips.

        Args:
            depth: The limits of pipelining in the batch.
            driver: Advances the downloads of the train.

        Returns:
            The connection; None without one. If the host is near, its health notes that.
        """
        pool = self._destination.pool
        connection = pool.take_proved(depth.trip)
        if connection is None:
            if pool.is_near(depth.trip):
                self.health.rest()
            return None
        most = depth.most if connection.trains else min(FIRST, depth.most)
        train = Train(connection, pool, driver)
        return HttpLine(train, most, self.health)

    def answer(self, body: StoredBody) -> Response | None:
        """Return the reply if it is accepted; else None.

        Args:
            body: The body of the reply, with its head.
        """
        if body.head.status != requests.codes.ok:
            return None
        reply, fields, length = Response(body, self._request), body.head.fields, body.length
        if "content-range" in fields and not resume.is_whole(reply):
            return None
        if "content-encoding" in fields and length is None:
            # A server may send a .gz file with "Content-Encoding: gzip": then the coded bytes are
            # the file. Without a length that can't be told.
            return None
        if body.error is None:
            return self._told(reply) if self.expected.has(body.data) else None
        # The body broke off. Its bytes aren't used, because no digest proves whose they are.
        return self._told(reply) if length in (None, self.expected.size) else None

    def _told(self, reply: Response) -> Response:
        reply.history = []
        if log.isEnabledFor(logging.DEBUG):
            log.debug("GET %s: %d, pipelined", redact.url(self._url.text), reply.status_code)
        return reply


class HttpLine:
    """A connection for one train.

    Attributes:
        depth (int): The most requests that may be sent on it together.
        room (int): The most bytes that may be sent on it together.
    """

    room = ROOM

    def __init__(self, train: Train, depth: int, health: Health) -> None:
        """Take a connection.

        Args:
            train: The train.
            depth: The most requests that may be sent on it together.
            health: What is known of the host.
        """
        self.depth = depth
        self._train, self._health = train, health
        self._is_first = not train.connection.trains
        self._requests: Sequence[PipelinedRequest] = ()
        self._number = 0
        self._is_refused = False

    @property
    def is_open(self) -> bool:
        """Whether more replies can be read."""
        return self._train.is_open

    @property
    def trip(self) -> float:
        """How long the last reply took that didn't queue behind another one (seconds)."""
        return self._train.connection.trip

    def send(self, requests: Sequence[PipelinedRequest]) -> None:
        """Send requests together. A connection that fails is not open afterwards.

        Args:
            requests: The requests, with equal keys.
        """
        self._requests = requests
        heads = [
            request.head if request.trace is None else request.head_for(request.trace)
            for request in requests
        ]
        self._train.send(heads, requests[0].timeout)

    def receive(self) -> Response | None:
        """Read the next reply. The cancellation of the current work ends the wait.

        Returns:
            The reply if it counts; else None.
        """
        request = self._requests[self._number]
        self._number += 1
        timeout = head_timeout = request.timeout
        is_probe = self._is_first and self._number == FIRST
        if is_probe:
            patience = max(PATIENCE, 4 * self.trip)
            head_timeout = patience if timeout is None else min(patience, timeout)
        body = self._train.receive(timeout, head_timeout)
        if body is None:
            if is_probe and self._train.ended:
                self._health.stop()
            return None
        reply = request.answer(body)
        if request.trace is not None and request.traced is not None:
            request.traced.replied(body.head.status)
            if reply is not None:
                request.trace.take(request.traced)
                request.traced = None
        if reply is None:
            self._is_refused |= body.head.status in _REFUSALS
            others = [each.expected for each in self._requests]
            if body.error is None and request.expected.is_of_another(body.data, others):
                self._health.stop()
                # If a reply too many came, the next request would get the last reply of the train.
                self._train.is_mixed_up = True
        return reply

    def close(self) -> None:
        """Give the connection back if each request has its reply; else close it."""
        connection = self._train.connection
        # Servers close a connection after 100 or 1000 requests. With several threads that makes
        # many ends in a row, although the host does answer trains. So only early ends count.
        is_early = self._train.ended and connection.trains <= EARLY
        if is_early or self._is_refused or self._train.is_given_up:
            self._health.ended()
        elif self._number and not self._train.left and not self._is_first:
            # The first train has two requests only, so it doesn't prove that the server answers
            # longer ones.
            self._health.answered()
        self._train.close()
        for request in self._requests:
            if request.traced is not None:
                request.traced.end(transient("pipelined, and no reply to it counts"))


def pipelined(download: Options, health: Health) -> PipelinedRequest | None:
    """Return the request for the content of a download if it may be pipelined.

    Args:
        download: The download.
        health: What is known of the host.
    """
    if health.is_off or health.is_resting or not _is_plain(download):
        return None
    expected = _expected(download)
    if expected is None:
        return None
    try:
        url, route, request = Exchange(download, {}, lambda _: None).first()
        adapter = route.adapter(url.text)
        destination = adapter.destination(url, route.proxies)
        has_hook = (
            # The hook may act on any reply, and a train may receive replies that belong to other
            # requests.
            download.auth is not None
            and request.hooks["response"]
            and not getattr(download.auth, "answers_refusals_only", False)
        )
        if destination is not None and destination.is_direct and not has_hook:
            return PipelinedRequest(download, expected, url, request, destination, health)
    except (ValueError, DownloadFailed, http.client.HTTPException):
        # Sent alone, the request fails with this error.
        pass
    return None


def _is_plain(download: Options) -> bool:
    """Return whether the request is for the whole file, and only our own code takes part."""
    timeout, writer = download.timeout or Timeout(), download.writer
    return (
        download.method == "GET"
        and _is_ours(type(download))
        and _has_our_methods(download)
        and download.rate_limiter is None
        and download.limits is None
        and not download.mirrors
        and download.parts == 1
        and not download.known_etag
        and not download.known_last_modified
        # These limits count from the start of the request, and here the replies before take time.
        and timeout.total is None
        and timeout.least_speed is None
        # A writer that resumes may need a Range request for the rest of a partial file.
        and (writer is None or not writer.resume)
        and (not download.headers or not any(map(_is_special, download.headers)))
    )


# Cached by class. The cache is limited, because it keeps classes alive.
@functools.lru_cache(maxsize=128)
def _is_ours(kind: type[Download]) -> bool:
    """Return whether no plugin overrides methods that affect the request or the content."""
    # The library's class that defines the protocol defines these methods. Its subclasses must not.
    classes = kind.__mro__
    home = next(number for number, cls in enumerate(classes) if "_protocol" in vars(cls))
    return classes[home].__module__.startswith(f"{__package__}.") and all(
        _OURS.isdisjoint(vars(cls)) for cls in classes[:home]
    )


def _has_our_methods(download: Options) -> bool:
    """Return whether the object has no attributes in place of the methods of its class."""
    try:
        # Not by vars(), which would make a dict for the object.
        return _functions(download) == _methods(type(download))
    except AttributeError:
        return False


def _is_special(name: str) -> bool:
    return name.lower() in _SPECIAL


def _expected(download: Options) -> Expected | None:
    """Return the expected size and digests; None if they can't prove whose content it is."""
    size, digests = None, []
    for validation in download.validations:
        # Only these exact classes: a subclass may validate in another way.
        if type(validation) is SizeValidation and validation.enforced:
            if size not in (None, validation.expected):
                return None
            size = validation.expected
        elif type(validation) is DigestValidation and validation.enforced:
            digests.append(validation)
    if not digests or size is None or size > BODY_LIMIT:
        return None
    return Expected(size, digests)
