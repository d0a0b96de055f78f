"""The one place that decides what may be shown of a text.

Hidden are: userinfo (user and password) in URLs, the values in a URL's query, and fragments
(contract section 10). The names of query parameters stay, for they help to find a fault.
"""

import re

MASK = "***"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*")
# Quotes end a host or a path in most texts. Userinfo and a query go on, for they may well have an
# apostrophe: too much hidden does no harm.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://(?:[^\s/?#]*@)?[^\s\"'<>?#]*(?:[?#]\S*)?")
# With what urllib.parse leaves out: it finds a host, and credentials, all the same.
_START = re.compile(r"([\x00-\x20]*[A-Za-z][A-Za-z0-9+.\-\t\r\n]*:)?([/\\\t\r\n]*)(.*)", re.DOTALL)
_USERINFO = re.compile(r"(?<=//)[^\s/?#]*@")
_QUERY = re.compile(r"(?<=[^\s?])\?(\S+)")
_HOST = re.compile(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::\d{0,5})?")


def url(value: str) -> str:
    """Return a URL that may be shown.

    Args:
        value: Any text that is meant as a URL, well-formed or not. A proxy's URL may lack the
            scheme.

    Returns:
        The URL without userinfo and fragment, and with each value of its query masked. Characters
        that can't be printed are escaped, so that a URL can't forge a line of a log.
    """
    scheme, slashes, rest = _START.match(value).groups("")  # type: ignore[union-attr]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    has_userinfo = "@" in authority
    is_path = scheme.strip().lower() == "file:" and len(slashes) != 2
    if has_userinfo or not (is_path or _HOST.fullmatch(authority)):
        # What looks like a scheme is a user's name then.
        scheme = scheme if slashes or not has_userinfo else ""
        rest = _without_userinfo(rest)
    rest = rest.partition("#")[0]
    path, mark, query = rest.partition("?")
    return _printable(scheme + slashes + path + mark + _query(query))


def _without_userinfo(rest: str) -> str:
    """Cut userinfo off from what is behind the slashes of a URL.

    A password that nobody encoded may have any character, also '@', '/', '?' and '#', so that it
    ends at the last '@'. Where that is in a query or a fragment it may be a part of a value as
    well, and nothing can be shown; nor where what remains has no host.
    """
    head = re.split(r"[?#]", rest, maxsplit=1)[0]
    shown = rest[rest.rfind("@") + 1 :]
    authority = re.split(r"[/?#]", shown, maxsplit=1)[0]
    is_certain = "@" in head and "@" not in rest[len(head) :]
    return shown if is_certain and _HOST.fullmatch(authority) else MASK


def scheme(value: str) -> str | None:
    """Return the scheme of a URL, if it may be shown.

    Args:
        value: Any text that is meant as a URL.

    Returns:
        The scheme; None where there is none, or where it may be a user's name as well.
    """
    name, colon, rest = value.partition(":")
    if not colon or _SCHEME.fullmatch(name) is None:
        return None
    return name if rest.startswith("//") or "@" not in rest else None


def text(value: str) -> str:
    """Return a text that may be shown: each URL in it, and each query without one, is redacted.

    Args:
        value: Any text, such as the message of another library's exception.
    """
    shown = _URL.sub(lambda match: url(match.group()), value)
    # Of a URL without a scheme.
    shown = _USERINFO.sub("", shown)
    return _QUERY.sub(lambda match: "?" + _query(match.group(1)), shown)


def exception(error: BaseException, *secrets: str) -> None:
    """Redact the texts of an exception and of those behind it, in place.

    The type stays, so that it can be told what happened; it is for exceptions that were raised
    inside of a call of ours and that nobody else holds.

    Args:
        error: The exception. What it carries as arguments, its cause and its context are redacted
            too.
        secrets: Texts to hide wherever they stand, such as a URL that doesn't parse as one.
    """
    pending: list[BaseException] = [error]
    seen: set[int] = set()
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, UnicodeError):
            # The whole text stands in its arguments, and is no text of ours to keep. What it says
            # has a position, which tells how long a secret is at least.
            current.args = (MASK,)
        if isinstance(current, UnicodeEncodeError):
            current.object, current.start, current.end = MASK, 0, len(MASK)
        elif isinstance(current, UnicodeDecodeError):
            current.object, current.start, current.end = MASK.encode(), 0, len(MASK)
        current.args = tuple(_argument(value, secrets, pending) for value in current.args)
        if isinstance(current, OSError):
            # Its text is made of these, and not of the arguments.
            for name in ("errno", "strerror", "filename", "filename2"):
                shown = _argument(getattr(current, name), secrets, pending)
                if shown is not getattr(current, name):
                    setattr(current, name, shown)
        pending.extend(
            behind
            for behind in (current.__cause__, current.__context__, getattr(current, "reason", None))
            if isinstance(behind, BaseException)
        )


def _argument(value: object, secrets: tuple[str, ...], pending: list[BaseException]) -> object:
    if isinstance(value, BaseException):
        pending.append(value)
    elif isinstance(value, str):
        for secret in secrets:
            if secret:
                value = value.replace(secret, url(secret) if "://" in secret else MASK)
        return text(value)
    elif isinstance(value, bytes):
        # The name of a file may be bytes.
        return text(value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    return value


def _query(query: str) -> str:
    return "&".join(
        f"{name}={MASK}" if equals else MASK if name else ""
        for name, equals, _ in (part.partition("=") for part in query.split("&"))
    )


def _printable(value: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
