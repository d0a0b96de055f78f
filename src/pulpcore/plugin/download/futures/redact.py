"""Removes secrets from texts before they are logged or raised.

It removes userinfo (user and password) and fragments from URLs, and masks the values in a query.
The names of query parameters stay, because they help to find a fault.
"""

import re

MASK = "***"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*")
# A quote ends a host or a path, since texts often quote URLs. It doesn't end userinfo or a query,
# which may contain an apostrophe. Hiding too much does no harm.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://(?:[^\s/?#]*@)?[^\s\"'<>?#]*(?:[?#]\S*)?")
# Also matches control characters, line breaks and backslashes. urllib.parse ignores some of them
# and finds a host and credentials behind them.
_START = re.compile(r"([\x00-\x20]*[A-Za-z][A-Za-z0-9+.\-\t\r\n]*:)?([/\\\t\r\n]*)(.*)", re.DOTALL)
_USERINFO = re.compile(r"(?<=//)[^\s/?#]*@")
_QUERY = re.compile(r"(?<=[^\s?])\?(\S+)")
_HOST = re.compile(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::\d{0,5})?")


def url(value: str) -> str:
    """Redact a URL.

    Args:
        value: A URL, well-formed or not. It may lack the scheme, as a proxy's URL does.

    Returns:
        The URL without userinfo and fragment, with the values of its query masked. Unprintable
        characters are escaped, so that a URL can't forge a line in a log.
    """
    scheme, slashes, rest = _START.match(value).groups("")  # type: ignore[union-attr]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    has_userinfo = "@" in authority
    is_path = scheme.strip().lower() == "file:" and len(slashes) != 2
    if has_userinfo or not (is_path or _HOST.fullmatch(authority)):
        # In ``user:password@host`` the text before the colon isn't a scheme but the user's name.
        scheme = scheme if slashes or not has_userinfo else ""
        rest = _without_userinfo(rest)
    rest = rest.partition("#")[0]
    path, mark, query = rest.partition("?")
    return _printable(scheme + slashes + path + mark + _query(query))


def _without_userinfo(rest: str) -> str:
    """Remove userinfo from the part of a URL after ``//``.

    A password that isn't percent-encoded may contain '@', '/', '?' and '#', so it ends at the last
    '@'. If the last '@' is in the query or the fragment, it may belong to a value instead. Where
    the password ends is then unknown, so the whole part is masked. It is masked as well if the rest
    doesn't begin with a host.
    """
    head = re.split(r"[?#]", rest, maxsplit=1)[0]
    shown = rest[rest.rfind("@") + 1 :]
    authority = re.split(r"[/?#]", shown, maxsplit=1)[0]
    is_certain = "@" in head and "@" not in rest[len(head) :]
    return shown if is_certain and _HOST.fullmatch(authority) else MASK


def scheme(value: str) -> str | None:
    """Return the scheme of a URL, unless it may be a user's name.

    Args:
        value: A URL, well-formed or not.

    Returns:
        The scheme. None if there is none, or if it may be the user in ``user:password@host``.
    """
    name, colon, rest = value.partition(":")
    if not colon or _SCHEME.fullmatch(name) is None:
        return None
    return name if rest.startswith("//") or "@" not in rest else None


def text(value: str) -> str:
    """Redact each URL in a text, and each query of a URL without scheme and host.

    Args:
        value: Any text, such as the message of another library's exception.

    Returns:
        The redacted text.
    """
    shown = _URL.sub(lambda match: url(match.group()), value)
    # Userinfo of a URL without a scheme.
    shown = _USERINFO.sub("", shown)
    return _QUERY.sub(lambda match: "?" + _query(match.group(1)), shown)


def exception(error: BaseException, *secrets: str) -> None:
    """Redact the texts of an exception, its causes and its contexts, in place.

    Only for an exception that no other code holds, since it is changed. Its type stays.

    Args:
        error: The exception. Exceptions in its ``args`` and its ``reason`` are redacted, too.
        secrets: Texts to mask in all messages, such as a URL that can't be parsed.
    """
    pending: list[BaseException] = [error]
    seen: set[int] = set()
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, UnicodeError):
            # Its arguments hold the whole text, and its message a position in that text. The
            # position would reveal the least length of a secret.
            current.args = (MASK,)
        if isinstance(current, UnicodeEncodeError):
            current.object, current.start, current.end = MASK, 0, len(MASK)
        elif isinstance(current, UnicodeDecodeError):
            current.object, current.start, current.end = MASK.encode(), 0, len(MASK)
        current.args = tuple(_argument(value, secrets, pending) for value in current.args)
        if isinstance(current, OSError):
            # str(OSError) uses these attributes, not args.
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
        # A file name in an OSError may be bytes.
        return text(value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    return value


def _query(query: str) -> str:
    return "&".join(
        f"{name}={MASK}" if equals else MASK if name else ""
        for name, equals, _ in (part.partition("=") for part in query.split("&"))
    )


def _printable(value: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
