"""Determines where a redirect leads, and which credentials may go there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import quote

import requests

from ..error import DownloadFailed
from ..net.url import URL, Origin, join
from .wire.reply import header

SCHEMES = ("http", "https")
"""The URL schemes that a download or a redirect may have."""

LIMIT = 30
"""The maximum number of redirects of a download."""

STATUSES = frozenset({301, 302, 303, 307, 308})

_PRIVATE = frozenset({"authorization", "cookie", "proxy-authorization", "host"})
_FOR_MIRRORS = frozenset({"user-agent", "range"})
# All printable ASCII characters. The URL parser encodes those that must be encoded.
_AS_GIVEN = "".join(map(chr, range(0x21, 0x7F)))


def location(reply: requests.Response, url: URL) -> URL | None:
    """Return the target of a redirect; None if the response isn't one.

    Args:
        reply: The response.
        url: The URL of the request.

    Raises:
        DownloadFailed: The target isn't a valid http or https URL.
    """
    if reply.status_code not in STATUSES or not (value := header(reply, "location")):
        return None
    problem = ""
    try:
        # Fields are decoded as Latin-1, but servers that don't percent-encode send UTF-8.
        target = join(url, quote(value.encode("latin-1"), safe=_AS_GIVEN), SCHEMES)
    except ValueError as error:
        problem = str(error)
    if problem:
        # Raised outside of the except clause: the server's text may repeat a secret. The reason of
        # this error can be redacted; a chained ValueError would keep the secret.
        raise DownloadFailed(f"the server redirects to a URL that can't be asked: {problem}")
    # A redirect can't provide credentials.
    return target._replace(user=None, password=None)


def is_private(header: str) -> bool:
    """Return whether a header of the caller is meant for one origin only.

    Args:
        header: The name of the header.
    """
    return header.lower() in _PRIVATE


def is_for_mirrors(header: str) -> bool:
    """Return whether a header of the caller goes to mirrors, too: it says which form is wanted.

    Args:
        header: The name of the header.
    """
    name = header.lower()
    return name in _FOR_MIRRORS or name.startswith("accept")


def may_have_credentials(home: Origin, there: Origin) -> bool:
    """Return whether credentials for one origin may be sent to another.

    They may be sent to the same origin, and from http to https on the standard ports of the same
    host, as requests does.

    Args:
        home: The origin that the credentials are meant for.
        there: The origin of the request.
    """
    if home == there:
        return True
    return home.host == there.host and (home.scheme, home.port, there.scheme, there.port) == (
        "http",
        80,
        "https",
        443,
    )


def may_have_netrc(urls: Sequence[URL], is_named: bool) -> bool:
    """Return whether credentials from a netrc file may be sent to the target of a redirect.

    A netrc file distinguishes hosts, but not schemes and ports. So its credentials must not go to
    another scheme or port of a host that was requested before, nor to http after https. The default
    entry, for any host, applies to the host of the given URL, but not to one that a server chose.

    Args:
        urls: The URLs, in the order requested; the last one is the target.
        is_named: The entry is for this host, and not the default.
    """
    *before, there = (url.origin for url in urls)
    return (
        is_named
        and not loses_security(urls)
        and all(one.host != there.host or may_have_credentials(one, there) for one in before)
    )


def loses_security(urls: Iterable[URL]) -> bool:
    """Return whether a chain of redirects leads from https to http.

    Args:
        urls: The URLs, in the order requested.
    """
    schemes = [url.scheme for url in urls]
    return "http" in schemes[schemes.index("https") :] if "https" in schemes else False
