"""Where a redirect leads, and what may travel there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import requests

from ..error import DownloadFailed
from .route import Origin, origin
from .wire.reply import header

LIMIT = 30
"""The most redirects that are followed."""

STATUSES = frozenset({301, 302, 303, 307, 308})

_PRIVATE = frozenset({"authorization", "cookie", "proxy-authorization", "host"})


def location(reply: requests.Response, url: str) -> str | None:
    """Return where a reply redirects to, or None if it doesn't.

    Args:
        reply: The reply.
        url: The URL that it is the reply to.

    Raises:
        DownloadFailed: It isn't a URL.
    """
    value = header(reply, "Location") if reply.status_code in STATUSES else None
    if not value:
        return None
    # Headers were read as Latin-1, and servers that don't quote mean UTF-8.
    value = quote(value.encode("latin-1"), safe="!#$%&'()*+,/:;=?@[]~")
    with contextlib.suppress(ValueError):
        parts = urlsplit(urljoin(url, value))
        # Nobody is asked to log in by a redirect, and the fragment isn't sent.
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
    # Not within an except clause: the error there has the text, whatever is in it.
    raise DownloadFailed("the server redirects to a URL that is not valid")


def is_private(header: str) -> bool:
    """Whether a header of the caller's is meant for one origin only.

    Args:
        header: The name of the header.
    """
    return header.lower() in _PRIVATE


def may_have_credentials(home: Origin, there: Origin) -> bool:
    """Whether what is meant for one origin may be sent to another.

    It may be sent to the same one, and from http to https on the standard ports of one host, as
    requests does.

    Args:
        home: The origin that it is meant for.
        there: The origin that a request goes to.
    """
    if home == there:
        return True
    return home.host == there.host and (home.scheme, home.port, there.scheme, there.port) == (
        "http",
        80,
        "https",
        443,
    )


def may_have_netrc(urls: Sequence[str], is_named: bool) -> bool:
    """Whether what a netrc file has for the host of a redirect's target may be sent there.

    A file tells hosts apart, and neither schemes nor ports. So it may not where that would be for
    another scheme or port of a host that was asked before, nor after https over http. An entry for
    any host is for that of the URL as given, and not for one that a server chose.

    Args:
        urls: The URLs, in the order requested; the last one is the target.
        is_named: The entry names the host.
    """
    *before, there = map(origin, urls)
    return (
        is_named
        and not loses_security(urls)
        and all(one.host != there.host or may_have_credentials(one, there) for one in before)
    )


def loses_security(urls: Iterable[str]) -> bool:
    """Whether a chain of redirects goes from https to http.

    Args:
        urls: The URLs, in the order requested.
    """
    schemes = [urlsplit(url).scheme for url in urls]
    return "http" in schemes[schemes.index("https") :] if "https" in schemes else False
