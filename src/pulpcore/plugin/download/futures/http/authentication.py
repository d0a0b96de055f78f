"""Applies ``auth``, a callable as ``requests.auth.AuthBase``, to the requests of an exchange."""

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
    """An object as a key that only equals itself."""

    def __init__(self, thing: object) -> None:
        """Keep the object, so that no other gets its id.

        Args:
            thing: The object.
        """
        self._thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and other._thing is self._thing

    def __hash__(self) -> int:
        return id(self._thing)


def key_of(auth: Auth) -> Hashable:
    """Return what is equal for two downloads that may share connections.

    Args:
        auth: The callable. That of ``requests.auth.HTTPDigestAuth`` can't be hashed. A bound method
            is another object each time, and equals the others.
    """
    try:
        hash(auth)
    except TypeError:
        return Identity(auth)
    return auth


class Connection:
    """What a hook finds as ``response.connection``.

    Attributes:
        download (Options): The download, whose settings count for what the hook asks elsewhere.
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
        secrets (set[str]): What it has put into the headers of requests.
    """

    def __init__(self, auth: Auth, download: Options, resend: Resend) -> None:
        """Begin.

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
            TypeError: ``auth`` has returned something else.
        """
        # Hooks of requests add the cookies of a response to these.
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
            # Hooks of requests read the whole body, which may be endless.
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
    """Call ``auth`` or a hook. An error that it causes is no failure of the host."""
    try:
        return function()
    except DownloadError as error:
        if error.download is None:
            # The download itself failed, when the hook sent a request again.
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
    # What raise_for_status() raised.
    redact.exception(error)
    failed = failure.from_status(reply.status_code, None, True)
    failed.transient = reply.status_code in backoff.TRANSIENT
    return failed


def _failed(error: DownloadError, reason: str = "") -> DownloadFailed:
    """Return the error of the download. It isn't NotFound if only a token wasn't found."""
    kind = NotAuthorized if isinstance(error, NotAuthorized) else DownloadFailed
    failed = kind(reason or f"auth: {error.reason}")
    failed.transient, failed.retry_after = error.transient, error.retry_after
    failed.local = error.local
    return failed
