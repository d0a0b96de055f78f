"""Authentication by bearer tokens (RFC 6750), which downloads and threads share."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlencode

import requests
from requests.auth import AuthBase

from .context import Cache
from .engine.attempt import record_of
from .engine.backoff import DEFAULT
from .engine.spec import share
from .error import DownloadError, DownloadFailed, NotAuthorized
from .http import HttpDownload, secret
from .http.options import Options
from .http.redirect import SCHEMES
from .http.route import without_client
from .http.wire.reply import headers
from .net.url import URL, Origin, parse
from .settings import User, is_number
from .waiting.atomic import Cell
from .waiting.cancellation import current as cancellation
from .writer import BufferWriter

Fetch = Callable[[], str | tuple[str, float]]
"""Returns a token, or a pair of a token and the time for which it is valid (seconds)."""

_Timed = tuple[str, float]
_UNAUTHORIZED = 401
# How long a token is valid if the registry doesn't say (seconds; the registries' own default).
_LIFE = 60
# A token is renewed when a tenth of its lifetime is left, but at most this early (seconds).
_MARGIN = 30
# The longest lifetime that counts (seconds). JSON may have integers too large for a float.
_LONGEST = 1e9
# The largest reply with a token (bytes), and the most tokens of registries that are kept.
_REPLY = 1 << 20
_TOKENS = 1024
_FAILURE = "auth: no token came from the server that the host names"
# RFC 6750 section 2.1.
_TOKEN = re.compile(r"[\w\-.~+/]+=*", re.ASCII)
# A scheme, or a parameter of the scheme before it (RFC 9110 section 11.6.1).
_WORD = re.compile(r"""([^\s,="]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,"]*))?""")


class Challenge(NamedTuple):
    """The challenge of a registry: which token it wants, and which server (the realm) issues it."""

    home: URL
    realm: URL
    service: str | None
    scope: str

    @property
    def key(self) -> Hashable:
        """The key of a token. It contains the origin, so no token is sent to another origin."""
        return self.home.origin, self.realm.text, self.service, self.scope


class Token(NamedTuple):
    """A token, and the time of the clock until which it is used (seconds)."""

    value: str
    until: float


class _Fetch:
    """One fetch of a token, which threads share. The outcome is None until it has ended."""

    outcome: Token | Exception | None = None


_fetching: ContextVar[tuple[BearerAuth, ...]] = ContextVar("fetching", default=())


class BearerAuth(AuthBase):
    """Sends a bearer token with each request of the downloads that share this object.

    With ``fetch``, the token is fetched before the first request, once for all threads; the others
    wait. It is fetched again before it expires, and once for each request that the server refuses
    with 401. If that doesn't help, the download fails with
    :class:`~pulpcore.plugin.download.futures.NotAuthorized`. If ``fetch`` raises, the downloads
    that waited fail with its error, and the next one calls it again.

    Without ``fetch``, it does what registries of containers ask for (``WWW-Authenticate: Bearer
    realm=...,service=...,scope=...``): it asks the realm for a token, which it keeps for this
    server, service and scope. It uses the download's time-outs, proxy, CA, limits and
    ``public_only``. The realm must be an https URL, or of the same scheme, host and port as the
    download. Only then does it get the download's own ``user``, if you give no other one here.

    Attributes:
        answers_refusals_only (bool): Its hook acts on a 401 only, so requests may be pipelined.
    """

    answers_refusals_only = True

    def __init__(
        self,
        fetch: Fetch | None = None,
        user: User | tuple[str, str] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Create it without a token.

        Args:
            fetch: Returns a token, or a pair of a token and the seconds for which it is valid. None
                to answer the challenges of registries.
            user: The credentials for the realm, unused with ``fetch``. They are sent to each https
                realm that a server names over https, and to a realm of the server's own origin.
            clock: Returns the time (seconds); None for ``time.monotonic()``.

        Raises:
            TypeError: An argument has a wrong type; the message names it.
        """
        if fetch is not None and not callable(fetch):
            raise TypeError(f"fetch: must be a callable or None, not {type(fetch).__name__}")
        self._fetch, self._user = fetch, User.of(user)
        self._clock = time.monotonic if clock is None else clock
        # For each kind of token, the last fetch of it.
        self._fetches: dict[Hashable, Cell[_Fetch]] = {}
        # The last challenge of an origin, and that of a folder there.
        self._challenges: dict[tuple[Origin, str], Challenge] = {}
        self._running = Cache()

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the token to a request.

        Args:
            r: The request.

        Raises:
            Exception: ``fetch`` has raised it.
            TypeError: ``fetch`` has returned no str, or no number of seconds beside it.
            RuntimeError: ``fetch`` itself has sent the request, and would wait for its own token.
        """
        token = self._known(r.url or "") if self._fetch is None else self._token(None, self._own)
        if token is not None:
            _set(r, token)
        r.hooks["response"].append(partial(self._answer, token))
        return r

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the tokens: the other process fetches its own."""
        return type(self), (self._fetch, self._user)

    def _answer(
        self, token: Token | None, response: requests.Response, **options: Any
    ) -> requests.Response:
        """Response hook: after a 401, send the request once more with another token."""
        if response.status_code != _UNAUTHORIZED:
            return response
        if self._fetch is not None:
            renewed = self._token(None, self._own, token)
        else:
            challenge = _challenge(response)
            if challenge is None:
                return response
            self._remember(challenge)
            base = getattr(response.connection, "download", None)
            ask = partial(_ask, challenge, base, self._user)
            renewed = self._token(challenge.key, ask, token)
        response.close()
        request = response.request.copy()
        _set(request, renewed)
        return response.connection.send(request, **options)

    def _token(
        self, key: Hashable, fetch: Callable[[], _Timed], refused: Token | None = None
    ) -> Token:
        """Return the token for a key. Fetch it if there is none, if it has expired or was refused.

        Args:
            key: The key.
            fetch: Returns a token, and for how long it is valid (seconds).
            refused: The token that was refused with 401; None without one.

        Raises:
            Exception: What ``fetch`` has raised, in this thread or in another one.
            RuntimeError: ``fetch`` itself has asked for the token.
        """
        if self in _fetching.get():
            raise RuntimeError("fetch: it can't use a download with the same BearerAuth")
        cell = self._fetches.setdefault(key, Cell(_Fetch()))
        while True:
            current = cell.value
            is_new = current.outcome is None
            outcome = self._running.once(current, partial(self._fetched, current, fetch))
            # Threads that still wait get the outcome from `current`, so the cache can forget it.
            with contextlib.suppress(LookupError):
                self._running.purge(current)
            if isinstance(outcome, Token) and (
                is_new or (outcome is not refused and outcome.until > self._clock())
            ):
                return outcome
            cell.change(partial(_replaced, current))
            if isinstance(outcome, Exception):
                raise outcome

    def _fetched(self, current: _Fetch, fetch: Callable[[], _Timed]) -> Token | Exception:
        if current.outcome is None:
            mark = _fetching.set((*_fetching.get(), self))
            try:
                began = self._clock()
                value, life = fetch()
                life = min(life, _LONGEST)
                current.outcome = Token(value, began + life - min(life / 10, _MARGIN))
            except Exception as error:
                token = cancellation()
                if token is not None and token.is_cancelled():
                    # Not an outcome: a waiting thread of another batch fetches the token then.
                    raise
                current.outcome = error
            finally:
                _fetching.reset(mark)
        return current.outcome

    def _own(self) -> _Timed:
        """Call the function that the caller gave, and check what it returns."""
        # Declared as Any, because the result is checked.
        found: Any = self._fetch()  # type: ignore[misc]
        is_pair = isinstance(found, tuple) and len(found) == 2
        value, life = found if is_pair else (found, _LONGEST)
        if not isinstance(value, str):
            raise TypeError(f"fetch: must return a str, not {type(value).__name__}")
        if not is_number(life):
            raise TypeError(f"fetch: the seconds must be a number, not {type(life).__name__}")
        return value, life

    def _known(self, url: str) -> Token | None:
        """Return a valid token that a registry will probably want for a URL; None without one."""
        origin, folder = _place(parse(url, SCHEMES))
        challenge = self._challenges.get((origin, folder)) or self._challenges.get((origin, ""))
        cell = None if challenge is None else self._fetches.get(challenge.key)
        token = None if cell is None else cell.value.outcome
        return token if isinstance(token, Token) and token.until > self._clock() else None

    def _remember(self, challenge: Challenge) -> None:
        for kept in (self._fetches, self._challenges):
            if len(kept) > _TOKENS:
                kept.clear()
        origin, folder = _place(challenge.home)
        self._challenges[origin, folder] = self._challenges[origin, ""] = challenge


# In a batch on processes, all downloads of a worker process share one object.
share(BearerAuth)


def _set(request: requests.PreparedRequest, token: Token) -> None:
    request.headers["Authorization"] = f"Bearer {token.value}"


def _replaced(old: _Fetch, current: _Fetch) -> _Fetch:
    return _Fetch() if current is old else current


def _place(url: URL) -> tuple[Origin, str]:
    """Return the origin and the folder of a URL."""
    return url.origin, url.target.partition("?")[0].rpartition("/")[0] + "/"


def _challenge(response: requests.Response) -> Challenge | None:
    """Return the first usable challenge for a bearer token in a response; None without one."""
    for parameters in _parameters(", ".join(headers(response, "www-authenticate"))):
        home = parse(response.request.url or "", SCHEMES)
        try:
            realm = parse(parameters.get("realm", ""), SCHEMES)
        except ValueError:
            continue
        sent = secret.of([response.request.url], [], response.request.headers)
        # The realm's URL is logged, and a malicious server could put the request's secrets into it.
        if not secret.repeated(realm, sent):
            return Challenge(home, realm, parameters.get("service"), parameters.get("scope", ""))
    return None


def _parameters(field: str) -> Iterator[dict[str, str]]:
    """Yield the parameters of each Bearer challenge in a WWW-Authenticate field."""
    found: dict[str, str] | None = None
    for word, value in _WORD.findall(field):
        if value:
            if found is not None:
                plain = re.sub(r"\\(.)", r"\1", value[1:-1]) if value[0] == '"' else value
                found.setdefault(word.lower(), plain)
            continue
        if found is not None:
            yield found
        found = {} if word.lower() == "bearer" else None
    if found is not None:
        yield found


def _ask(challenge: Challenge, base: Options | None, user: User) -> _Timed:
    """Ask the realm for a token. Return it, and for how long it is valid (seconds).

    Args:
        challenge: The challenge.
        base: The download whose settings are used; None for the defaults.
        user: The credentials for the realm.

    Raises:
        NotAuthorized: The realm has refused, or may not be asked.
        DownloadFailed: The request failed, or the reply has no token.
    """
    home, realm, has_user = challenge.home, challenge.realm, user.name is not None
    if realm.origin != home.origin and (
        realm.scheme != "https" or (has_user and home.scheme != "https")
    ):
        # The message doesn't show the realm's URL: a server could put the request's secrets into
        # it.
        raise NotAuthorized(
            "the server wants a token from another server, which must be asked by https"
            + (", and not with a user unless the server is, too" if has_user else "")
        )
    writer = BufferWriter(_REPLY)
    failed = None
    try:
        _request(challenge, base, user, writer)()
    except DownloadError as error:
        kind = NotAuthorized if isinstance(error, NotAuthorized) else DownloadFailed
        failed = kind(f"{_FAILURE}: {error.reason}")
        failed.transient, failed.retry_after = error.transient, error.retry_after
        failed.local, failed.auth_failed = error.local, True
    if failed is not None:
        # Raised outside of the except clause. Otherwise its __context__ would keep the request
        # with the credentials.
        raise failed
    return _read(writer.getvalue())


def _request(
    challenge: Challenge, base: Options | None, user: User, writer: BufferWriter
) -> HttpDownload[BufferWriter]:
    """Return the download that fetches a token."""
    realm, is_home = challenge.realm, challenge.realm.origin == challenge.home.origin
    pairs = [("service", challenge.service)] if challenge.service is not None else []
    pairs += [("scope", scope) for scope in challenge.scope.split()]
    mark = "&" if "?" in realm.target else "?"
    download = HttpDownload(realm.text + (mark + urlencode(pairs) if pairs else ""), writer)
    # No retries here: the download that needs the token is retried, with its own back-off.
    download.retry = DEFAULT.new(total=0)
    download.user = user
    if base is not None:
        download.context, download.public_only = base.context, base.public_only
        download.timeout = base.timeout
        download.ssl = base.ssl if is_home else without_client(base.ssl)
        download.proxy_url = base.proxy_url
        # Limits per host must count this connection, too: the realm may be on the same host.
        download.limits, record_of(download).limits = base.limits, record_of(base).limits
        if is_home and user.name is None:
            download.user = _user_of(base)
    if not is_home and user.name is None:
        # An `auth` that does nothing turns netrc off, because the server chose this host, not the
        # user.
        download.auth = _as_it_is
    return download


def _user_of(base: Options) -> User:
    """Return the credentials of a download: its ``user``, or those in its URL."""
    home = parse(base.url, SCHEMES)
    return base.user if base.user.name is not None else User(home.user, home.password)


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _read(data: bytes) -> _Timed:
    """Return the token in the reply of a realm, and for how long it is valid (seconds).

    Args:
        data: The body of the reply.

    Raises:
        DownloadFailed: There is no token in it.
    """
    with contextlib.suppress(ValueError, RecursionError):
        reply = json.loads(data)
        if isinstance(reply, dict):
            value = reply.get("token") or reply.get("access_token")
            life = reply.get("expires_in")
            if isinstance(value, str) and _TOKEN.fullmatch(value):
                return value, life if is_number(life) and life > 0 else _LIFE
    # The message doesn't show the content, which may be secret.
    failed = DownloadFailed(f"{_FAILURE}: its reply has no token")
    failed.auth_failed = True
    raise failed
