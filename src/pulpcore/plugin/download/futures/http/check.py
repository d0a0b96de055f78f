"""Validates the settings of an HTTP download before a request is sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from requests.structures import CaseInsensitiveDict

from ..engine.protocol import validate
from ..engine.spec import reduce_by
from ..net.url import parse
from ..settings import SSL, Timeout, User, check_number
from . import condition
from .options import Auth, Options
from .redirect import SCHEMES

METHODS = ("GET", "HEAD")

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def check(download: Options) -> None:
    """Validate all settings, and convert those that requests accepts in other forms.

    Args:
        download: The download.

    Raises:
        TypeError: A setting has a wrong type; the message names the attribute.
        ValueError: A setting has an unusable value; the message names the attribute.
    """
    _coerce(download)
    validate(timeout=download.timeout, user=download.user, ssl=download.ssl)
    try:
        parse(download.url, SCHEMES)
    except ValueError as error:
        raise ValueError(f"url: {error}") from error
    if download.parts != 1:
        parts_of(download.parts)
    if download.mirrors:
        _check_mirrors(download.mirrors)
    if download.headers:
        _check_headers(download)
    if download.expansion_max is not None:
        check_number("expansion_max", download.expansion_max)
    if download.known_etag is not None:
        _check_text(f"known_etag: the header {condition.ETAG!r}", download.known_etag)
    if download.known_last_modified is not None:
        _check_text(
            f"known_last_modified: the header {condition.LAST_MODIFIED!r}",
            download.known_last_modified,
        )


def _check_mirrors(mirrors: Sequence[str]) -> None:
    for number, url in enumerate(mirrors, start=1):
        try:
            parse(url, SCHEMES)
        except ValueError as error:
            raise ValueError(f"mirrors: number {number}: {error}") from error


def mirrors_of(mirrors: object) -> tuple[str, ...]:
    """Convert mirrors to a tuple.

    Args:
        mirrors: An iterable of URLs.

    Raises:
        TypeError: It is something else.
    """
    if type(mirrors) is tuple:
        return mirrors
    if isinstance(mirrors, Iterable) and not isinstance(mirrors, str | bytes):
        return tuple(mirrors)
    raise TypeError(f"mirrors: must be an iterable of str, not {type(mirrors).__name__}")


def parts_of(parts: object) -> int:
    """Return the number of connections unchanged.

    Args:
        parts: The number, at least 1.

    Raises:
        TypeError: It is no int.
        ValueError: It is less than 1.
    """
    # Compare the exact type first: that is fast, and nearly always true.
    if type(parts) is not int and (not isinstance(parts, int) or isinstance(parts, bool)):
        raise TypeError(f"parts: must be an int, not {type(parts).__name__}")
    if parts < 1:
        raise ValueError(f"parts: must be at least 1, not {parts}")
    return parts


def _coerce(download: Options) -> None:
    """Convert settings that a handler may have set to anything that the constructor accepts."""
    # Compare the exact type first: that is fast, and nearly always true.
    if type(download.method) is not str or download.method not in METHODS:
        download.method = method_of(download.method)
    if type(download.timeout) is not Timeout:
        download.timeout = Timeout.of(download.timeout)
    if type(download.user) is not User:
        download.user = User.of(download.user)
    if type(download.ssl) is not SSL:
        download.ssl = SSL.of(download.ssl)
    if download.proxy_url is not None:
        proxy_of(download.proxy_url)
    if download.auth is not None:
        auth_of(download.auth)
    headers = download.headers
    if type(headers) is not CaseInsensitiveDict and not isinstance(headers, CaseInsensitiveDict):
        download.headers = headers_of(headers)


def method_of(value: object) -> str:
    """Convert a method to upper case.

    Args:
        value: GET or HEAD, in upper or lower case.

    Raises:
        ValueError: It is another method.
    """
    method = "GET" if type(value) is str and value == "GET" else str(value).upper()
    if method not in METHODS:
        raise ValueError(f"method: must be GET or HEAD, not {value!r}")
    return method


def auth_of(auth: object) -> Auth | None:
    """Return ``auth`` unchanged.

    Args:
        auth: A callable, or None.

    Raises:
        TypeError: It is neither.
    """
    if auth is None or callable(auth):
        return auth
    raise TypeError(f"auth: must be a callable or None, not {type(auth).__name__}")


def proxy_of(url: object) -> str | None:
    """Return the URL of a proxy unchanged.

    Args:
        url: The URL, or None.

    Raises:
        TypeError: It is neither a str nor None.
    """
    if url is None or isinstance(url, str):
        return url
    raise TypeError(f"proxy_url: must be a str or None, not {type(url).__name__}")


def headers_of(headers: object) -> CaseInsensitiveDict[str]:
    """Convert headers to a mapping that ignores case.

    Args:
        headers: A mapping, or None.

    Raises:
        TypeError: It is neither a mapping nor None.
    """
    if headers is None or isinstance(headers, Mapping):
        return CaseInsensitiveDict(headers or {})
    raise TypeError(f"headers: must be a mapping or None, not {type(headers).__name__}")


def _reduced(headers: CaseInsensitiveDict[str]) -> tuple[Any, ...]:
    """Reduce headers for a pickle. By pickle's own way they take a fifth of a whole download."""
    return CaseInsensitiveDict, (tuple(headers.items()),) if headers else ()


reduce_by(CaseInsensitiveDict, _reduced)


def _check_headers(download: Options) -> None:
    for number, (name, value) in enumerate(download.headers.items(), start=1):
        _check_header(number, name, value)
    if any(type(name) is not str for name in download.headers):
        # The redaction looks for headers by name, and would miss one whose name is bytes.
        download.headers = CaseInsensitiveDict(
            {_text(name): value for name, value in download.headers.items()}
        )


def _text(name: object) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _check_header(number: int, name: object, value: object) -> None:
    shown = name if isinstance(name, bytes) else str(name).encode()
    if _NAME.fullmatch(shown) is None:
        # Don't quote the name: it may contain a secret value by mistake.
        raise ValueError(f"headers: the name of number {number} is no name of a header")
    for text in (name, value):
        _check_text(f"headers: the header {name!r}", text)


def _check_text(what: str, text: object) -> None:
    if not isinstance(text, str | bytes):
        raise ValueError(f"{what} must have a str as its value")  # noqa: TRY004 - as validating does
    characters = text if isinstance(text, str) else text.decode("latin-1")
    if any(c in characters for c in "\r\n\0") or characters != characters.strip():
        raise ValueError(f"{what} has characters that can't be sent")
    if any(ord(c) > 255 for c in characters):
        raise ValueError(f"{what} has characters beyond Latin-1")
