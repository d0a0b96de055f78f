"""A downloader for pulpcore's existing stages, and errors that Pulp shows to its users.

It needs pulpcore, and can only be imported after ``django.setup()``. No other module of the package
imports it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import weakref
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import CancelledError
from types import SimpleNamespace
from typing import Any, NamedTuple

import aiohttp
import certifi
import urllib3
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from pulpcore.plugin import exceptions
from pulpcore.plugin.download import BaseDownloader, DownloadResult, HttpDownloader

from . import redact
from .batch import Batch
from .context import Context
from .error import DownloadError, MismatchError, SizeMismatch
from .event import Event
from .factory import Factory
from .http import HttpDownload
from .http.failure import find
from .http.wire.error import TunnelRefused
from .settings import SSL
from .waiting.cancellation import current
from .writer import Writer

__all__ = ["FuturesDownloader", "pulp_errors"]

# Statuses of success (0: no reply). An error with one of them isn't about the status.
_CONTENT = frozenset({0, 200, 203, 206})
# The headers of a failed reply that callers use. The others are left out: aiohttp prints the
# headers with the exception, and they may hold secrets.
_SHOWN = ("WWW-Authenticate", "Proxy-Authenticate", "Retry-After")
_REQUEST = frozenset({"auth", "headers", "proxy", "proxy_auth"})


class _Shared(NamedTuple):
    """The objects that the downloads of one aiohttp session share.

    Attributes:
        context (Context): Their connections.
        ssl (SSL): Their TLS settings. They are shared, because loading the CA certificates takes
            longer than downloading a small file.
    """

    context: Context
    ssl: SSL


_shared: weakref.WeakKeyDictionary[Any, _Shared] = weakref.WeakKeyDictionary()


class FuturesDownloader(HttpDownloader):
    """Downloads over HTTP for pulpcore's own stages, with this library in place of aiohttp.

    Give it to ``DownloaderFactory`` of pulpcore, in ``downloader_overrides``, for ``http`` and
    ``https``.

    It has the constructor, the attributes and the results of pulpcore's ``HttpDownloader``. The
    settings of the remote reach it through the aiohttp session, as there. What differs:

    - A broken transfer is resumed. The count for ``max_retries`` starts anew after each attempt
      that made progress.
    - The thread of the download writes and hashes the file. If ``handle_data`` was replaced or
      overridden, each buffer is passed to it instead, on the event loop, one at a time and in
      order. It can't take data back, so such a download never restarts at byte 0: it is resumed, or
      it fails.
    - After a replaced ``handle_data``, or the ``headers_ready_callback`` beside it, was called, no
      failure is a ClientResponseError or a ClientConnectionError. Callers take these for "nothing
      was sent yet". An exception of the two callbacks themselves is raised unchanged.
    - ``total_timeout`` limits the download with all its retries. It isn't limited by default.
    - ``session`` is the aiohttp session. Closing it closes the connections of the downloads, too.
    - ``raise_for_status()`` is not called, since there is no response of aiohttp.

    No thread and no partial file is left when :meth:`run` returns, raises or is cancelled.
    """

    session: Any
    path: str | None
    _writer: Any
    _digests: dict[str, Any]

    def __init__(self, url: str, session: Any = None, **kwargs: Any) -> None:
        """Make a downloader, as ``HttpDownloader`` does.

        Args:
            url: The URL.
            session: An ``aiohttp.ClientSession``, which the downloaders share. By default the
                downloader creates one, and closes it when it has run.
            kwargs: The other arguments of ``HttpDownloader`` and ``BaseDownloader``.
        """
        super().__init__(url, session=session, **kwargs)
        if not isinstance(self.session, _Session):
            self.session = _Session(self.session)

    async def run(self, extra_data: Mapping[str, Any] | None = None) -> Any:
        """Download the file, with retries, as soon as the semaphore admits it.

        Args:
            extra_data: ``disable_retry_list`` has the exceptions that are not retried, and
                ``request_kwargs`` may have ``auth``, ``headers``, ``proxy`` and ``proxy_auth``.

        Returns:
            The DownloadResult.

        Raises:
            aiohttp.ClientResponseError: The server replied an error status.
            aiohttp.ClientConnectionError: The network failed.
            aiohttp.ClientError: The download failed for another reason.
            TimeoutException: It took too long. If no data was handled before, it is a
                ClientConnectionError, too.
            DigestValidationError: The content has another digest.
            SizeValidationError: The content has another size.
            ValueError: ``request_kwargs`` has an unknown key.
        """
        async with self.semaphore:
            try:
                return await self._run(extra_data=extra_data)
            finally:
                if self._close_session_on_finalize:
                    await self.session.close()

    async def _run(self, extra_data: Mapping[str, Any] | None = None) -> Any:
        self.__drop()
        sink = _Sink(self, self.__take if self.__is_plain() else None, self.__drop, self.__sync)
        try:
            await _transfer(self, sink, extra_data or {})
            await self.finalize()
        except BaseException:
            self.__drop()
            raise
        return DownloadResult(
            path=self.path,
            artifact_attributes=self.artifact_attributes,
            url=self.url,
            headers=sink.headers,
        )

    def __is_plain(self) -> bool:
        """Whether ``handle_data`` is the one of ``BaseDownloader``, not replaced or overridden."""
        return getattr(self.handle_data, "__func__", None) is BaseDownloader.handle_data

    def __take(self, data: bytes) -> None:
        """Do in this thread what ``BaseDownloader.handle_data`` does on the event loop."""
        self._ensure_writer_has_open_file()
        self._writer.write(data)
        for digest in self._digests.values():
            digest.update(data)
        self._size += len(data)

    def __sync(self) -> None:
        """Flush the file to the disk, in this thread.

        ``finalize()`` calls fsync again on the event loop, and no longer blocks it there.
        """
        if self._writer is not None:
            self._writer.flush()
            os.fsync(self._writer.fileno())

    def __drop(self) -> None:
        """Remove the file, and set ``path`` to None: callers remove the file that it names."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self.path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            self.path = None


class _Session:
    """Wraps an aiohttp session, and holds what its downloads share."""

    def __init__(self, session: Any) -> None:
        shared = _shared.get(session)
        if shared is None:
            given = getattr(session.connector, "_ssl", True)
            shared = _shared[session] = _Shared(Context(), _ssl(given))
            # pulpcore's factory doesn't close its session before the interpreter exits. This closes
            # the connections when the session is garbage-collected, or else at exit.
            weakref.finalize(session, shared.context.close)
        self._session, self.shared = session, shared

    async def close(self) -> None:
        self.shared.context.close()
        await self._session.close()

    async def __aenter__(self) -> _Session:
        return self

    async def __aexit__(self, *unused: object) -> None:
        await self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


class _Sink(Writer):
    """Passes the content to a downloader, in the thread of the download.

    Attributes:
        headers (CIMultiDictProxy[str] | None): The headers of the reply that began the content.
        is_begun (bool): Whether callbacks were passed headers or data that can't be taken back.
        error (BaseException | None): What the downloader's methods or callbacks have raised.
        download (HttpDownload): The download.
    """

    download: HttpDownload

    def __init__(
        self,
        downloader: FuturesDownloader,
        take: Callable[[bytes], None] | None,
        drop: Callable[[], None],
        sync: Callable[[], None],
    ) -> None:
        """Make a sink. Call this on the event loop.

        Args:
            downloader: The downloader.
            take: Takes the data in any thread; None to await ``handle_data`` on the event loop.
            drop: Removes the data that was taken.
            sync: Flushes the data that was taken to the disk.
        """
        super().__init__()
        self._downloader, self._take, self._drop, self._sync = downloader, take, drop, sync
        self._loop = asyncio.get_running_loop()
        self._is_open = False
        self.headers: CIMultiDictProxy[str] | None = None
        self.error: BaseException | None = None

    @property
    def is_open(self) -> bool:
        return self._is_open

    @property
    def is_begun(self) -> bool:
        return self.headers is not None and not self.can_restart()

    def open(self) -> None:
        self._is_open = True

    def append(self, buffer: bytes) -> int:
        with self._noting():
            self._begin()
            if self._take is not None:
                self._take(buffer)
            else:
                self.call(self._downloader.handle_data(buffer))
        return len(buffer)

    def close(self) -> None:
        with self._noting():
            # For an empty file, append() was never called.
            self._begin()
            self._sync()
        self._is_open = False

    def discard(self) -> None:
        self._is_open = False

    def can_restart(self) -> bool:
        return self._take is not None

    def restart(self) -> None:
        self._drop()
        self.headers, self._is_open = None, True

    def call(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine on the event loop, and wait for it.

        This is the back-pressure: at most one buffer is under way to the event loop.

        Args:
            coroutine: The coroutine.

        Raises:
            Cancelled: The download was cancelled. The coroutine is cancelled, too.
            Exception: The coroutine has raised it.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        token: Any = current()
        sleeper = _Sleeper(future.cancel)
        token.attach(sleeper)
        try:
            future.result()
        except CancelledError:
            token.check()
            raise
        finally:
            token.detach(sleeper)

    def _begin(self) -> None:
        if self.headers is not None:
            return
        self.headers = _headers(self.download.reply.raw.headers)
        if self._downloader.headers_ready_callback is not None:
            self.call(self._downloader.headers_ready_callback(self.headers))

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.error = error
            raise


class _Sleeper(NamedTuple):
    """A sleeper for a cancellation token, which calls ``wake`` when it is cancelled."""

    wake: Callable[[], object]


class _Throttle(NamedTuple):
    """Adapts the throttler of a remote (requests a second) to our ``rate_limiter``."""

    sink: _Sink
    throttler: Any

    def delay(self) -> float:
        self.sink.call(self.throttler.acquire())
        return 0.0


async def _transfer(downloader: FuturesDownloader, sink: _Sink, extra: Mapping[str, Any]) -> None:
    """Download the content into a sink.

    Raises:
        Exception: What pulpcore's downloader would raise.
    """
    download: Any = _download(downloader, extra.get("request_kwargs") or {})
    sink.download, download.writer = download, sink
    if downloader.download_throttler:
        download.rate_limiter = _Throttle(sink, downloader.download_throttler)
    final = tuple(extra.get("disable_retry_list") or ())
    failures: list[DownloadError] = []

    def handle(event: Any) -> None:
        error: DownloadError = event.error
        is_final = isinstance(_as_of_aiohttp(error, sink), final)
        if isinstance(error, MismatchError):
            # pulpcore retries after a wrong digest or size, too.
            event.repaired = not is_final
        elif is_final and event.retrying and (token := current()) is not None:
            failures.append(error)
            token.cancel("disable_retry_list has this error")

    download.register(Event.ERROR, handle)
    async with Batch([download], 1, 1, downloader.session.shared.context) as batch:
        async for plan in batch():
            try:
                plan.result()
            except DownloadError as error:
                raise sink.error or _as_of_aiohttp([*failures, error][0], sink) from error


def _download(downloader: FuturesDownloader, request: Mapping[str, Any]) -> HttpDownload:
    """Return the download, with the settings of a downloader and of its session."""
    if unknown := set(request) - _REQUEST:
        raise ValueError(f"request_kwargs: {', '.join(sorted(unknown))} isn't supported")
    session, given = downloader.session, {**vars(downloader), **request}
    timeout, user, proxy_user = session.timeout, given["auth"], given["proxy_auth"]
    fields = CIMultiDict(session.headers)
    fields.update(request.get("headers") or {})
    is_limited = timeout.total != aiohttp.client.DEFAULT_TIMEOUT.total
    settings = SimpleNamespace(
        proxy_url=given["proxy"] and str(given["proxy"]),
        proxy_username=proxy_user and proxy_user.login,
        proxy_password=proxy_user and proxy_user.password,
        username=user and user.login,
        password=user and user.password,
        headers=[{name: ", ".join(fields.getall(name)) for name in fields}],
        total_timeout=timeout.total if is_limited else None,
        connect_timeout=timeout.connect,
        sock_connect_timeout=timeout.sock_connect,
        sock_read_timeout=timeout.sock_read,
        max_retries=downloader.max_retries,
    )
    expected = {**(downloader.expected_digests or {}), "size": downloader.expected_size or None}
    # The path is a placeholder: the caller replaces the writer.
    download: Any = Factory(settings).build(downloader.url, os.devnull, SimpleNamespace(**expected))
    download.retries = downloader.max_retries
    download.ssl = session.shared.ssl
    return download  # type: ignore[no-any-return]


def _ssl(given: Any) -> SSL:
    """Return our TLS settings for those of a connector of aiohttp.

    Args:
        given: A TLS context; True to verify servers with the CA certificates of the system; False
            not to verify them.
    """
    paths = ssl.get_default_verify_paths()
    system = SSL.SYSTEM if paths.cafile or paths.capath else None
    if not isinstance(given, ssl.SSLContext):
        return SSL(system, validation=bool(given))
    # A client certificate can't be read from a context, so the context is used as it is. Other
    # hosts must not get that certificate. They are verified without the context, with its CA
    # certificates and those of certifi.
    trusted = [ssl.DER_cert_to_PEM_cert(each) for each in given.get_ca_certs(binary_form=True)]
    return SSL(
        "".join([*trusted, certifi.contents()]),
        validation=given.verify_mode != ssl.CERT_NONE,
        context=given,
    )


def _headers(headers: Any) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(headers.items()))


class _Failure(NamedTuple):
    """The facts about an error that decide which exception of pulpcore stands for it.

    Attributes:
        url (str): The URL, redacted.
        reason (str): What happened, redacted.
        status (int): The error status that was replied; 0 without one.
        is_of_proxy (bool): Whether a proxy replied it to CONNECT.
        is_late (bool): Whether a time-out was exceeded.
        is_of_tls (bool): Whether TLS failed.
        is_of_network (bool): Whether the connection failed.
    """

    url: str
    reason: str
    status: int
    is_of_proxy: bool
    is_late: bool
    is_of_tls: bool
    is_of_network: bool

    @classmethod
    def of(cls, error: DownloadError) -> _Failure:
        facts, download = error.facts, error.download
        tunnel = find(error, TunnelRefused)
        status = 0 if facts is None or facts.status in _CONTENT else facts.status
        total = getattr(getattr(download, "timeout", None), "total", None)
        return cls(
            url=facts.url if facts is not None else "" if download is None else str(download),
            reason=redact.text(" ".join(error.reason.split())),
            status=status if tunnel is None else tunnel.status,
            is_of_proxy=tunnel is not None,
            is_late=(total is not None and facts is not None and facts.seconds >= total)
            or find(error, TimeoutError) is not None
            or find(error, urllib3.exceptions.TimeoutError) is not None,
            is_of_tls=find(error, ssl.SSLError) is not None,
            is_of_network=error.transient or error.refused,
        )


class _EarlyTimeout(exceptions.TimeoutException, aiohttp.ServerTimeoutError):  # type: ignore[misc]
    """A time-out before any data was handled: another source may be tried."""


def _as_of_aiohttp(error: DownloadError, sink: _Sink) -> Exception:
    """Return the exception that pulpcore's downloader would raise."""
    # Declared, because aiohttp and pulpcore may be untyped for the type checker.
    found: Exception
    failure = _Failure.of(error)
    if isinstance(error, MismatchError):
        return _mismatch(error, failure.url)
    if failure.is_late:
        kind = exceptions.TimeoutException if sink.is_begun else _EarlyTimeout
        found = kind(failure.url)
        return found
    text = f"{failure.url}: {failure.reason}"
    if sink.is_begun:
        found = aiohttp.ClientPayloadError(text)
        return found
    if failure.status:
        reply = getattr(sink.download, "reply", None)
        fields = {} if reply is None else reply.headers
        shown = {name: fields[name] for name in _SHOWN if name in fields}
        kind = aiohttp.ClientHttpProxyError if failure.is_of_proxy else aiohttp.ClientResponseError
        found = kind(
            aiohttp.RequestInfo(URL(failure.url), "GET", CIMultiDictProxy(CIMultiDict())),
            (),
            status=failure.status,
            message=failure.reason,
            headers=_headers(shown),
        )
        return found
    is_connection = failure.is_of_tls or failure.is_of_network
    found = (aiohttp.ClientConnectionError if is_connection else aiohttp.ClientError)(text)
    return found


def _mismatch(error: MismatchError, url: str) -> Exception:
    is_size = isinstance(error, SizeMismatch)
    kind = exceptions.SizeValidationError if is_size else exceptions.DigestValidationError
    return kind(error.actual, error.expected, url=url)  # type: ignore[no-any-return]


class _PulpDownloadError(exceptions.PulpException):  # type: ignore[misc]
    """A download failed in a way for which this pulpcore has no error."""

    error_code = "PLP0014"

    def __init__(self, url: str, *details: object) -> None:
        # Skip the __init__ of PulpException: its arguments differ between versions of pulpcore.
        Exception.__init__(self, url, *details)

    def __str__(self) -> str:
        return f"[{self.error_code}] {': '.join(map(str, self.args))}"


@contextlib.contextmanager
def pulp_errors() -> Iterator[None]:
    """A context manager that turns errors of this package into those of pulpcore.

    Pulp shows the text of its own errors to the user of a task, and hides all others.

    ======================================== ======================================
    What happened                            What is raised
    ======================================== ======================================
    The server replied a status              ``HttpResponseError``
    A time-out                               ``TimeoutException``
    TLS failed, or a certificate is wrong    ``SslConnectionError``
    The network failed                       ``RemoteConnectionError``
    The digest or the size is wrong          ``DigestValidationError``,
                                             ``SizeValidationError``
    Anything else, and what an older
    pulpcore has no error for                another ``PulpException``
    ======================================== ======================================

    Raises:
        pulpcore.plugin.exceptions.PulpException: In place of a DownloadError, which is its cause.
    """
    try:
        yield
    except DownloadError as error:
        raise _as_of_pulp(error) from error


def _as_of_pulp(error: DownloadError) -> Exception:
    failure = _Failure.of(error)
    if isinstance(error, MismatchError):
        return _mismatch(error, failure.url)
    if failure.is_late:
        return exceptions.TimeoutException(failure.url)  # type: ignore[no-any-return]
    name = ""
    details: list[Any] = [failure.reason]
    if failure.status:
        name, details = "HttpResponseError", [failure.status, failure.reason]
    elif failure.is_of_tls:
        name = "SslConnectionError"
    elif failure.is_of_network:
        name = "RemoteConnectionError"
    kind = getattr(exceptions, name, _PulpDownloadError)
    return kind(failure.url, *details)  # type: ignore[no-any-return]
