"""What of a download is secret where a server repeats it, as in the path of a Location.

Userinfo and the values of a query are hidden wherever they stand. Elsewhere a secret can only be
told from other text by looking for it.
"""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, unquote, unquote_plus

from .. import redact
from ..error import DownloadError
from ..net.url import URL, parse
from .redirect import is_private

# A shorter value of a query or a header is no token, and is a part of many a word.
_TOKEN = 8


def of(
    urls: Iterable[str | None],
    users: Iterable[tuple[str | None, str | None]],
    headers: Mapping[str, str | bytes],
) -> set[str]:
    """Return what a server may know of a download and nobody may be shown.

    Args:
        urls: The URL of the download, and those of proxies.
        users: The names and passwords that are sent.
        headers: The caller's headers.
    """
    found: set[str] = set()
    for url in filter(None, urls):
        with contextlib.suppress(ValueError):
            parsed = parse(url if "://" in url else f"http://{url}")
            found.update(_of_user(parsed.user, parsed.password))
            for part in parsed.target.partition("?")[2].split("&"):
                name, equals, value = part.partition("=")
                found.update(_tokens(unquote_plus(value if equals else name)))
    for user in users:
        found.update(_of_user(*user))
    for field, text in headers.items():
        if is_private(field) and field.lower() != "host":
            found.update(_of_header(text))
    return found


def _of_user(name: str | None, password: str | None) -> Iterator[str]:
    if password:
        yield password
    elif name:
        # Without a password it is often a token.
        yield from _tokens(name)
    if name or password:
        yield base64.b64encode(f"{name or ''}:{password or ''}".encode()).decode()


def _of_header(value: str | bytes) -> Iterator[str]:
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    for word in re.split(r"[;,\s]+", text):
        yield from _tokens(word)
        # A cookie has a name.
        yield from _tokens(word.partition("=")[2])
    if text.lower().startswith("basic "):
        with contextlib.suppress(ValueError):
            login = base64.b64decode(text[6:], validate=True).decode("latin-1")
            yield from _of_user(*login.partition(":")[::2])


def _tokens(value: str) -> list[str]:
    return [value] if len(value) >= _TOKEN else []


def repeated(url: URL, secrets: Iterable[str]) -> set[str]:
    """Return those secrets that stand in the host, the path or the query of a URL, in each form.

    Args:
        url: The URL.
        secrets: What may not be shown.
    """
    whole = unquote(url.host + url.target).lower()
    found = {secret for secret in secrets if secret.lower() in whole}
    found |= {quote(secret, safe=safe) for secret in found for safe in ("", "/")}
    # A host is made lower case.
    return found | {secret.lower() for secret in found}


def shown(url: URL, secrets: Iterable[str]) -> str:
    """Return the text of a URL that a server gave, without the secrets that it repeats.

    Args:
        url: The URL.
        secrets: What may not be shown.
    """
    if not repeated(url, secrets):
        return redact.url(url.text)
    # Nothing else: a path may have it in parts, or encoded in a way of the server's own.
    is_in_host = any(secret.lower() in url.host for secret in secrets)
    return f"{url.scheme}://{redact.MASK if is_in_host else url.authority}/{redact.MASK}"


def hide(error: DownloadError, secrets: Iterable[str]) -> None:
    """Leave secrets out of the reason of an error.

    Args:
        error: The error.
        secrets: What may not be shown.
    """
    for secret in sorted(secrets, key=len, reverse=True):
        error.reason = re.sub(re.escape(secret), redact.MASK, error.reason, flags=re.IGNORECASE)
    error.args = (error.reason,)
