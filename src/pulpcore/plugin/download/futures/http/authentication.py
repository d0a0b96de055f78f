"""Calls ``auth`` (a callable like those of ``requests.auth``) for the requests of an exchange."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any, TypeVar

import requests
from requests.cookies import RequestsCookieJar

from .. import redact
from ..engine import backoff
from ..error import DownloadError, DownloadFailed, NotAuthorized
from . import failure, secret
from .options import Auth, Options
from .wire.reply import drain, header

T = TypeVar("T")

Resend = Callable[[requests.PreparedRequest], requests.Response]


class Identity:
    """A key for an object that can't be hashed. Keys are equal only if the object is the same."""

    def __init__(self, thing: object) -> None:
        """Keep a reference to the object, so that its id isn't used again.

        Args:
            thing: The object.
        """
        self._thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and other._thing is self._thing

    def __hash__(self) -> int:
        return id(self._thing)


def key_of(auth: Auth) -> Hashable:
    """Return a key of ``auth``. Downloads share connections only if their keys are equal.

    Args:
        auth: The callable. It need not be hashable: ``requests.auth.HTTPDigestAuth`` isn't. Bound
            methods of one object are compared by equality, because each access makes a new one.
    """
    try:
        hash(auth)
    except TypeError:
        return Identity(auth)
    return auth


class Connection:
    """Stands in for the adapter that a hook of requests finds as ``response.connection``.

    Attributes:
        download (Options): The download. A hook that asks another server uses its settings.
    """

    def __init__(self, download: Options, resend: Resend) -> None:
        """Create a connection.

        Args:
            download: The download.
            resend: Sends a request as the download does: with its limits, time-outs and proxy.
        """
        self.download = download
        self._resend = resend

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a request to the host of the response.

        Args:
            request: The request.
            options: Ignored: the settings of the download apply.

        Raises:
            DownloadFailed: There is no response.
        """
        return self._resend(request)


class Authentication:
    """Calls ``auth`` and its hooks for one exchange.

    Attributes:
        secrets (set[str]): The values that ``auth`` and its hooks have put into headers. They must
            not be shown.
    """

    def __init__(self, auth: Auth, download: Options, resend: Resend) -> None:
        """Begin an exchange.

        Args:
            auth: The callable.
            download: The download.
            resend: Sends a request as the download does.
        """
        self.secrets: set[str] = set()
        self._before: Mapping[str, str | bytes] = {}
        self._auth = auth
        self._download = download
        self._resend = resend

    def apply(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Return a request with credentials.

        Args:
            request: The request, to the origin of the download's URL.

        Raises:
            DownloadFailed: The network failed when ``auth`` used it.
            TypeError: ``auth`` has returned something else than a request.
        """
        # The hook of HTTPDigestAuth adds cookies to the jar of the request, so there must be one.
        request.prepare_cookies(RequestsCookieJar())
        self._before = dict(request.headers)
        made: object = _guarded(partial(self._auth, request))
        if not isinstance(made, requests.PreparedRequest):
            raise TypeError(f"auth: it must return the request, not {type(made).__name__}")
        self._note(made)
        return made

    def answer(self, reply: requests.Response, **options: Any) -> requests.Response:
        """Call the hooks that ``auth`` has registered with the request of a response.

        Args:
            reply: The response.
            options: What requests passes to hooks.

        Returns:
            The response that counts, which may be that to another request.

        Raises:
            DownloadFailed: The network failed when a hook used it.
        """
        try:
            return self._answered(reply, options)
        except BaseException:
            reply.close()
            raise

    def _answered(self, reply: requests.Response, options: dict[str, Any]) -> requests.Response:
        hooks = reply.request.hooks["response"]
        if hooks and reply.status_code >= 400 and header(reply, "www-authenticate") is not None:
            # HTTPDigestAuth would read the whole body, which may be endless. drain() closes the
            # connection if more than a few bytes are left.
            drain(reply)
        for hook in hooks:
            reply.connection = Connection(self._download, self._sent)  # type: ignore[assignment]
            found: requests.Response | None = _guarded(partial(hook, reply, **options))
            reply = reply if found is None else found
        return reply

    def _sent(self, request: requests.PreparedRequest) -> requests.Response:
        self._note(request)
        return self._resend(request)

    def _note(self, request: requests.PreparedRequest) -> None:
        """Note the values of the headers that the request didn't have before."""
        for name, value in request.headers.items():
            if self._before.get(name) != value:
                self.secrets.update(secret.of_header(value))


def _guarded(function: Callable[[], T]) -> T:
    """Call ``auth`` or a hook.

    Raises:
        DownloadFailed: The network failed in the call. ``auth_failed`` is set, so that the failure
            isn't counted against the host of the download.
    """
    try:
        return function()
    except DownloadError as error:
        if error.download is None:
            # The hook sent the request again, and that failed: a failure of this download itself.
            raise
        failed = _failed(error, f"auth: {error}")
        failed.__cause__ = error
    except requests.exceptions.InvalidJSONError:
        raise
    except failure.ANTICIPATED as error:
        if isinstance(error, UnicodeError):
            raise
        failed = _failed(_translated(error))
        failed.__cause__ = error
    failed.auth_failed = True
    raise failed


def _translated(error: Exception) -> DownloadFailed:
    reply = getattr(error, "response", None)
    if not isinstance(error, requests.HTTPError) or reply is None:
        return failure.from_exception(error)
    # The hook called raise_for_status().
    redact.exception(error)
    failed = failure.from_status(reply.status_code, None, True)
    failed.transient = reply.status_code in backoff.TRANSIENT
    return failed


def _failed(error: DownloadError, reason: str = "") -> DownloadFailed:
    """Return the error of the download, for an error of another download that ``auth`` ran.

    The kind NotFound isn't kept: the token was not found, but the file may be there.
    """
    kind = NotAuthorized if isinstance(error, NotAuthorized) else DownloadFailed
    failed = kind(reason or f"auth: {error.reason}")
    failed.transient, failed.retry_after = error.transient, error.retry_after
    failed.local = error.local
    return failed
