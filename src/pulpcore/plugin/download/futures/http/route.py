"""The route to an origin: its session, its proxy, and its credentials in the environment."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import netrc
import operator
import os
from collections.abc import Callable, Hashable
from ssl import SSLContext as TlsContext
from typing import Any, NamedTuple, TypeVar

import requests
from requests.cookies import RequestsCookieJar
from requests.utils import get_environ_proxies, select_proxy

from ..context import Context, Resource
from ..net.dial import AddressMemory
from ..net.tls import shared_context
from ..net.url import URL, Origin
from ..settings import SSL, Limits
from ..waiting.lock import Process
from .wire.adapter import Adapter
from .wire.foreign import ForeignAdapter
from .wire.pool import IdleConnections
from .wire.request import CommonHeaders
from .wire.tunnel import Proxy, parse_proxy

# "identity": with another coding, the server might not send the file as published.
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity"}

# Unlike vars(), this doesn't create a dict that the object would keep.
_values = operator.attrgetter(*(each.name for each in dataclasses.fields(SSL)))

T = TypeVar("T")


class Key(NamedTuple):
    """The key of a session. Only downloads with equal keys share a session."""

    origin: Origin
    user: tuple[str, str] | None
    proxy: str | None
    tls: tuple[Any, ...]
    public_only: bool
    limits: tuple[Limits, ...]
    process: Process
    auth: Hashable = None


class Route(Resource):
    """The session for an origin, and what the environment says about it.

    Attributes:
        session (requests.Session): The session with the connection pool.
        common (CommonHeaders): The headers of all requests.
        proxies (dict[str, str]): The proxies by scheme, as requests expects them.
        netrc (tuple[str, str] | None): User and password from a netrc file.
        is_netrc_named (bool): The netrc entry is for this host, and not the default.
        is_tunnel (bool): A proxy forwards bytes that it can't read (RFC 9110 section 9.3.6).
    """

    def __init__(self, url: str, key: Key, settings: SSL, context: Context) -> None:
        """Read the environment and create the session.

        Args:
            url: A URL of the origin.
            key: The key in the cache.
            settings: The TLS settings.
            context: The context, which shares TLS contexts and idle connections.

        Raises:
            ValueError: A TLS setting isn't usable, or there is a proxy despite ``public_only``.
        """
        self.proxies = _proxies(url, key.proxy)
        proxy: str | None = select_proxy(url, self.proxies) or None
        is_socks = False
        if proxy is not None:
            self.proxies = {"http": proxy, "https": proxy}
            is_socks = _checked(proxy, key).is_socks
        self.netrc, self.is_netrc_named = None, False
        if key.user is None and key.auth is None:
            self.netrc, self.is_netrc_named = _netrc(key.origin.host)
        secure = key.origin.scheme == "https"
        self.is_tunnel = proxy is not None and (secure or is_socks)
        adapter = Adapter(
            _tls(settings, context if secure else None),
            # The client certificate is for the server only.
            _tls(
                without_client(settings),
                context if (proxy or "").lower().startswith("https:") else None,
            ),
            self.proxies,
            proxy,
            _shared(context, IdleConnections),
            _shared(context, AddressMemory),
            key.public_only,
            key.limits,
        )
        self.common = CommonHeaders({**_HEADERS, "User-Agent": user_agent()})
        self.session = _session(self.proxies, settings, adapter)
        self._adapter, self._adapters = adapter, dict(self.session.adapters)
        self._verify = settings.validation

    @property
    def has_cookies(self) -> bool:
        """Whether the session may have cookies, which the owner of the session has set."""
        jar = self.session.cookies
        return type(jar) is not _Jar or jar.was_used

    def adapter(self, url: str) -> Adapter | ForeignAdapter:
        """Return the session's adapter for a URL.

        Args:
            url: A URL of the origin.
        """
        if self.session.adapters == self._adapters:
            return self._adapter
        # The session's owner has mounted other adapters.
        found = self.session.get_adapter(url)
        return self._adapter if found is self._adapter else ForeignAdapter(found, self._verify)

    def close(self) -> None:
        """Close the connections."""
        self.session.close()


class _Jar(RequestsCookieJar):
    """Knows whether it was used: counting the cookies of a jar takes long."""

    was_used = False

    def set_cookie(self, *args: Any, **values: Any) -> None:
        self.was_used = True
        super().set_cookie(*args, **values)


def find_route(
    url: URL,
    user: tuple[str, str] | None,
    proxy: str | None,
    ssl: SSL,
    context: Context,
    public_only: bool = False,
    limits: tuple[Limits, ...] = (),
    auth: Hashable = None,
) -> Route:
    """Return the route to an origin, from the cache or a new one.

    Args:
        url: A URL of the origin.
        user: User and password.
        proxy: The URL of a proxy; None to use the environment's.
        ssl: The TLS settings.
        context: The context whose cache holds the routes.
        public_only: Connect to public addresses only.
        limits: The limits of the downloads: who shares a connection shares them.
        auth: The key of what adds credentials to requests, in place of netrc; None without.

    Raises:
        ValueError: The proxy or a TLS setting isn't usable.
    """
    # The key has the values, not the settings object: that is mutable, and equal ones must share.
    values = _values(ssl)
    # A tuple is equal to the Key, and is created faster.
    key = (url.origin, user, proxy, values, bool(public_only), limits, Process.current, auth)
    return context.cache.once(key, lambda: Route(url.text, Key(*key), ssl, context))


def _proxies(url: str, given: str | None) -> dict[str, str]:
    """Return the proxies by scheme, as requests expects them."""
    if given:
        return {"http": given, "https": given}
    return dict(get_environ_proxies(url))


def _checked(url: str, key: Key) -> Proxy:
    """Return the proxy of a URL.

    Raises:
        ValueError: The proxy can't be used. The message says where its URL comes from.
    """
    try:
        proxy = parse_proxy(url)
    except ValueError as error:
        source = "proxy_url" if key.proxy else "the proxy that the environment names"
        raise ValueError(f"{source}: {error}") from None
    if key.public_only:
        raise ValueError(
            "public_only: which address a proxy connects to can't be known: use none for "
            "this host, or have the proxy see to it and turn public_only off"
        )
    return proxy


def _session(proxies: dict[str, str], settings: SSL, adapter: Adapter) -> requests.Session:
    session = requests.Session()
    session.cookies = _Jar()
    # The route has read the environment. requests would read it again for every request.
    session.trust_env = False
    session.headers.clear()
    session.headers.update({"User-Agent": user_agent(), "Accept": "*/*"})
    session.proxies.update(proxies)
    session.verify = settings.validation
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def _tls(settings: SSL, context: Context | None) -> Callable[[], TlsContext]:
    """Return a function that returns the TLS context for TLS settings.

    Args:
        settings: The settings.
        context: The context that shares it, if it is created now; None to create it on demand.
    """
    if context is None:
        return functools.cache(functools.partial(shared_context, settings, Context(), "http"))
    made = shared_context(settings, context, "http")
    return lambda: made


def _shared(context: Context, kind: type[T]) -> T:
    """Return the object of a type that a context shares within this process."""
    found: T = context.cache.setdefault((kind, Process.current), kind())
    return found


def without_client(settings: SSL) -> SSL:
    """Return a copy of TLS settings without the client certificate, which a context may have.

    Args:
        settings: The settings.
    """
    return dataclasses.replace(
        settings,
        client_certificate=None,
        client_key=None,
        client_key_password=None,
        context=None,
    )


def _netrc(host: str) -> tuple[tuple[str, str] | None, bool]:
    """Return the netrc credentials for a host, and whether the entry names the host.

    A file that can't be read has none.

    Args:
        host: The host. The file may have an IPv6 address in brackets, or without its zone.
    """
    given = os.environ.get("NETRC")
    paths = ["~/.netrc", "~/_netrc"] if given is None else [given]
    entries = {}
    with contextlib.suppress(OSError, UnicodeError, netrc.NetrcParseError):
        path = next(filter(os.path.exists, map(os.path.expanduser, paths)), None)
        hosts = {} if path is None else netrc.netrc(path).hosts
        entries = {name.lower(): entry for name, entry in hosts.items()}
    address = host.partition("%")[0]
    for name in (host, address, f"[{address}]", "default"):
        login, account, password = entries.get(name, ("", "", ""))
        if login or account or password:
            return (login or account or "", password or ""), name != "default"
    return None, False


@functools.cache
def user_agent() -> str:
    """Return the name and version of this library, for the User-Agent header."""
    try:
        version = importlib.metadata.version("pulpcore-futures")
    except importlib.metadata.PackageNotFoundError:
        return "pulpcore-futures"
    return f"pulpcore-futures/{version}"
