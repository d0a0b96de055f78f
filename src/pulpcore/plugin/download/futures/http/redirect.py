"""Where a redirect leads, and what may travel there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import quote

import requests

from ..error import DownloadFailed
from ..net.url import URL, Origin, join
from .wire.reply import header

SCHEMES = ("http", "https")
"""The schemes of the URLs that can be asked."""

LIMIT = 30
"""The most redirects that are followed."""

STATUSES = frozenset({301, 302, 303, 307, 308})

_PRIVATE = frozenset({"authorization", "cookie", "proxy-authorization", "host"})
# All of ASCII that can be seen: what has to be encoded of it is for the parser to say.
_AS_GIVEN = "".join(map(chr, range(0x21, 0x7F)))


def location(reply: requests.Response, url: URL) -> URL | None:
    """Return where a reply redirects to, or None if it doesn't.

    Args:
        reply: The reply.
        url: The URL that it is the reply to.

    Raises:
        DownloadFailed: It isn't an http or https URL.
    """
    if reply.status_code not in STATUSES or not (value := header(reply, "location")):
        return None
    problem = ""
    try:
        # Fields are read as Latin-1, and servers that don't encode mean UTF-8.
        target = join(url, quote(value.encode("latin-1"), safe=_AS_GIVEN), SCHEMES)
    except ValueError as error:
        problem = str(error)
    if problem:
        # Not within the except clause: the server may repeat a secret, and this text can be mended.
        raise DownloadFailed(f"the server redirects to a URL that can't be asked: {problem}")
    # Nobody is asked to log in by a redirect.
    return target._replace(user=None, password=None)


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


def may_have_netrc(urls: Sequence[URL], is_named: bool) -> bool:
    """Whether what a netrc file has for the host of a redirect's target may be sent there.

    A file tells hosts apart, and neither schemes nor ports. So it may not where that would be for
    another scheme or port of a host that was asked before, nor after https over http. An entry for
    any host is for that of the URL as given, and not for one that a server chose.

    Args:
        urls: The URLs, in the order requested; the last one is the target.
        is_named: The entry names the host.
    """
    *before, there = (url.origin for url in urls)
    return (
        is_named
        and not loses_security(urls)
        and all(one.host != there.host or may_have_credentials(one, there) for one in before)
    )


def loses_security(urls: Iterable[URL]) -> bool:
    """Whether a chain of redirects goes from https to http.

    Args:
        urls: The URLs, in the order requested.
    """
    schemes = [url.scheme for url in urls]
    return "http" in schemes[schemes.index("https") :] if "https" in schemes else False
