"""Parsed URLs: where to connect, which credentials to use, and what to request.

:mod:`urllib.parse`, urllib3 and requests read unusual URLs differently, and rewrite parts of them.
HTTP and FTP use only the parser here, which refuses ambiguous URLs. Its errors contain no text of
the URL, because that may contain a password.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import NamedTuple
from urllib.parse import quote, unquote

from .. import redact

PORTS = {
    "http": 80,
    "https": 443,
    "ftp": 21,
    "ftps": 990,
    "socks4": 1080,
    "socks4a": 1080,
    "socks5": 1080,
    "socks5h": 1080,
}
"""The schemes that can be parsed, with their default ports."""

_LABEL = r"[a-z0-9][a-z0-9\-]{0,62}"
# A fast path for nearly all URLs: they need no decoding, encoding or further checks.
_PLAIN_ORIGIN = re.compile(
    rf"(https?)://({_LABEL}(?:\.{_LABEL})*)(?::([1-9][0-9]{{0,3}}|[1-5][0-9]{{4}}))?"
)
_PLAIN_TARGET = re.compile(
    r"/[A-Za-z0-9\-._~!$&'()*+,;=:@/]*(?:\?[A-Za-z0-9\-._~!$&'()*+,;=:@/?]*)?"
)
_PARTS = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?#]*)([^#]*)", re.DOTALL)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HOST_AND_PORT = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]*))?")
# RFC 6874 writes the zone as `%25eth0`, but most programs write `%eth0`.
_IPV6 = re.compile(r"([0-9a-f:.]+)(?:%(?:25)?([A-Za-z0-9\-._~]+))?", re.IGNORECASE)
# RFC 3986 section 3.2.2, without percent-encoded characters.
_NAME = re.compile(r"[a-z0-9\-_~!$&'()+,;=][a-z0-9\-._~!$&'()*+,;=]*")
# Characters that a URL must not contain (RFC 3986 section 2), and '%' without two hexadecimal
# digits.
_TO_ENCODE = re.compile(r"[^A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]|%(?![0-9A-Fa-f]{2})")
_BEHIND_SCHEME = len("http://")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Origin(NamedTuple):
    """Scheme, host and port: the scope of credentials (RFC 9110 section 4.3.1)."""

    scheme: str
    host: str
    port: int


class URL(NamedTuple):
    """A parsed URL, which :func:`parse` returns.

    Attributes:
        origin (Origin): Scheme, host and port, as the three attributes of these names, too.
        user (str | None): The user's name of the userinfo, decoded; None without userinfo.
        password (str | None): The password of the userinfo, decoded; None where there is none.
        target (str): Path and query as they are sent. Only what is no character of a URL is
            encoded, and a ``%`` that encodes nothing; all else is as it was given.
        text (str): The URL without userinfo and fragment, with the zone of an address.
    """

    origin: Origin
    user: str | None
    password: str | None
    target: str
    text: str

    @property
    def scheme(self) -> str:
        """The scheme, in lower case."""
        return self.origin.scheme

    @property
    def host(self) -> str:
        """The host in lower case, to resolve: without brackets, with ``%zone``, a name as IDNA."""
        return self.origin.host

    @property
    def port(self) -> int:
        """The port, by default that of the scheme."""
        return self.origin.port

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them (RFC 9110 section 7.2).

        It omits the default port, and the zone of an address, which is meaningful on this machine
        only.
        """
        scheme, host, port = self.origin
        return _authority(scheme, host.partition("%")[0], port)

    @property
    def absolute(self) -> str:
        """The URL without userinfo and fragment, for requests to a proxy."""
        return f"{self.scheme}://{self.authority}{self.target}"

    def __repr__(self) -> str:
        return f"<URL {redact.url(self.text)}>"


def parse(text: str, schemes: tuple[str, ...] = tuple(PORTS)) -> URL:
    """Parse a URL.

    Args:
        text: The URL.
        schemes: The schemes that it may have.

    Raises:
        ValueError: It isn't valid, or has another scheme. The message says why, and has no text of
            the URL but a scheme.
    """
    try:
        return _parse(text, schemes)
    except (AttributeError, TypeError):
        if isinstance(text, str):
            raise
    # Check the type only here, because nearly all URLs are valid and found in the cache.
    raise ValueError(f"it must be a str, not {type(text).__name__}")


def join(base: URL, reference: str, schemes: tuple[str, ...] = tuple(PORTS)) -> URL:
    """Resolve a reference, such as a Location, against the URL that it was found at.

    It follows RFC 3986 section 5.2, with one exception: a path that begins with a slash stays
    unchanged, with dot segments and ``//``, like that of a complete URL.

    Args:
        base: The URL that the reference was found at.
        reference: The reference.
        schemes: The schemes that the outcome may have.

    Raises:
        ValueError: It isn't valid; as for :func:`parse`.
    """
    scheme, colon, rest = reference.partition(":")
    if colon and scheme.lower() == base.scheme and not rest.startswith("//"):
        # Obsolete, but some servers still send a relative reference in this form (section 5.2.2).
        reference = rest
    if _SCHEME.match(reference):
        return _parse(reference, schemes)
    if reference.startswith("//"):
        return _parse(f"{base.scheme}:{reference}", schemes)
    reference = reference.partition("#")[0]
    path, mark, query = base.target.partition("?")
    if not reference.startswith("/"):
        relative, own_mark, own_query = reference.partition("?")
        if relative:
            path = _without_dots(path[: path.rindex("/") + 1] + relative)
        if relative or own_mark:
            mark, query = own_mark, own_query
        reference = path + mark + query
    # Not `base._replace(...)`: the result must be validated, too.
    return _parse(f"{base.text.removesuffix(base.target)}{reference}", schemes)


# Cached, because each attempt and each redirect parses the URL again.
@functools.lru_cache(maxsize=256)
def _parse(text: str, schemes: tuple[str, ...]) -> URL:
    start = text.find("/", _BEHIND_SCHEME)
    if start > 0 and _PLAIN_TARGET.fullmatch(text, start):
        origin, prefix = _plain_origin(text[:start])
        if origin is not None and origin.scheme in schemes:
            target = text[start:]
            return URL(origin, None, None, target, prefix + target)
    if _CONTROL.search(text.partition("/")[0]) or text.startswith(" "):
        # urllib.parse ignores such characters, and other parsers don't. They would find another
        # host.
        raise ValueError("there is a blank or a control character in or before its scheme")
    parts = _PARTS.match(text)
    scheme = text.partition(":")[0].lower() if parts is None else parts.group(1).lower()
    if scheme not in schemes:
        *others, last = schemes
        allowed = f"{', '.join(others)} or {last}" if others else last
        shown = redact.scheme(text) or "missing"
        raise ValueError(f"the scheme must be {allowed}, not {shown!r}")
    if _SURROGATE.search(text):
        raise ValueError("it is not valid: it has bytes that are no UTF-8: percent-encode them")
    if parts is None or _CONTROL.search(parts.group(2)):
        raise _invalid()
    userinfo, _, place = parts.group(2).rpartition("@")
    match = _HOST_AND_PORT.fullmatch(place)
    if match is None:
        raise _invalid()
    port = (match.group(2) or "").lstrip("0") or ("0" if match.group(2) else str(PORTS[scheme]))
    if not 0 < len(port) <= 5 or not 0 < int(port) < 65536:
        raise _invalid()
    name, colon, password = userinfo.partition(":")
    url = _url(Origin(scheme, _host(match.group(1)), int(port)), _target(parts.group(3)))
    if name or password:
        return url._replace(user=unquote(name), password=unquote(password) if colon else None)
    return url


# Many URLs have the same origin.
@functools.lru_cache(maxsize=64)
def _plain_origin(text: str) -> tuple[Origin | None, str]:
    """Return the origin of a plain URL without its target, and its text; None if it isn't plain."""
    plain = _PLAIN_ORIGIN.fullmatch(text)
    if plain is None:
        return None, ""
    scheme, host, port = plain.groups()
    origin = Origin(scheme, host, int(port) if port else PORTS[scheme])
    return origin, _prefix(origin)


def _url(origin: Origin, target: str) -> URL:
    return URL(origin, None, None, target, _prefix(origin) + target)


def _prefix(origin: Origin) -> str:
    scheme, host, port = origin
    return f"{scheme}://{_authority(scheme, host.replace('%', '%25'), port)}"


def _authority(scheme: str, host: str, port: int) -> str:
    host = f"[{host}]" if ":" in host else host
    return host if port == PORTS[scheme] else f"{host}:{port}"


def _target(rest: str) -> str:
    path = rest if rest.startswith("/") else f"/{rest}"
    return _TO_ENCODE.sub(lambda match: quote(match.group(), safe=""), path)


def _host(given: str) -> str:
    host = _address(given[1:-1]) if given.startswith("[") else _name(given)
    if host is None:
        raise _invalid()
    return host


def _address(given: str) -> str | None:
    """Return an IPv6 address in lower case, with its zone unchanged; None if it isn't one."""
    match = _IPV6.fullmatch(given)
    if match is None:
        return None
    address, zone = match.groups()
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return None
    return address.lower() + (f"%{zone}" if zone else "")


def _name(given: str) -> str | None:
    """Return a host name in lower case, as IDNA if necessary; None if it isn't one."""
    try:
        # Encoded characters are UTF-8, and a name that has them is looked up as IDNA (RFC 3986
        # section 3.2.2).
        host = unquote(given, errors="strict").lower()
        if not host.isascii():
            import idna  # noqa: PLC0415 - it takes 20 ms to import, and few hosts need it

            host = idna.encode(host, uts46=True).decode()
    except UnicodeError:
        return None
    labels = host.removesuffix(".").split(".")
    if not _NAME.fullmatch(host) or not all(0 < len(label) < 64 for label in labels):
        return None
    return host


def _without_dots(path: str) -> str:
    """Resolve the dot segments of a path (RFC 3986 section 5.2.4)."""
    *folders, last = path.split("/")[1:]
    kept: list[str] = []
    for segment in folders if last not in {".", ".."} else [*folders, last]:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join([*kept, "" if last in {".", ".."} else last])


def _invalid() -> ValueError:
    return ValueError(
        "it is not valid: check its host and port (a slash, question mark or hash in a user's name "
        "or password must be percent-encoded)"
    )
