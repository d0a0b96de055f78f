"""Finds the secrets of a download in texts of the server, such as the path of a Location.

Userinfo and the values of a query are always redacted, without this module. Anywhere else, a secret
can be recognized only by comparing the text with the known secrets.
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

# A shorter value of a query or a header is unlikely to be a token, and is part of many words.
_TOKEN = 8


def of(
    urls: Iterable[str | None],
    users: Iterable[tuple[str | None, str | None]],
    headers: Mapping[str, str | bytes],
) -> set[str]:
    """Return the secrets of a download that a server may repeat.

    Args:
        urls: The URL of the download, and those of proxies.
        users: The pairs of name and password that are sent.
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
            found.update(of_header(text))
    return found


def _of_user(name: str | None, password: str | None) -> Iterator[str]:
    if password:
        yield password
    elif name:
        # A name without a password is often a token.
        yield from _tokens(name)
    if name or password:
        yield base64.b64encode(f"{name or ''}:{password or ''}".encode()).decode()


def of_header(value: str | bytes) -> Iterator[str]:
    """Yield the secrets in the value of a header.

    Args:
        value: The value.
    """
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    for word in re.split(r"[;,\s]+", text):
        yield from _tokens(word)
        # A cookie is a pair NAME=VALUE: its value alone is a secret too.
        yield from _tokens(word.partition("=")[2])
    if text.lower().startswith("basic "):
        with contextlib.suppress(ValueError):
            login = base64.b64decode(text[6:], validate=True).decode("latin-1")
            yield from _of_user(*login.partition(":")[::2])


def _tokens(value: str) -> list[str]:
    return [value] if len(value) >= _TOKEN else []


def repeated(url: URL, secrets: Iterable[str]) -> set[str]:
    """Return the secrets that the host, path or query of a URL contains, in all their spellings.

    Args:
        url: The URL.
        secrets: The secrets.
    """
    whole = unquote(url.host + url.target).lower()
    found = {secret for secret in secrets if secret.lower() in whole}
    found |= {quote(secret, safe=safe) for secret in found for safe in ("", "/")}
    # The URL parser converts the host to lower case.
    return found | {secret.lower() for secret in found}


def shown(url: URL, secrets: Iterable[str]) -> str:
    """Return the text of a URL that a server sent, without the secrets that it contains.

    Args:
        url: The URL.
        secrets: The secrets.
    """
    if not repeated(url, secrets):
        return redact.url(url.text)
    # Mask the whole path: it may contain parts of the secret, or an unusual encoding of it.
    is_in_host = any(secret.lower() in url.host for secret in secrets)
    return f"{url.scheme}://{redact.MASK if is_in_host else url.authority}/{redact.MASK}"


def hide(error: DownloadError, secrets: Iterable[str]) -> None:
    """Redact secrets in the reason of an error.

    Args:
        error: The error.
        secrets: The secrets.
    """
    for secret in sorted(secrets, key=len, reverse=True):
        error.reason = re.sub(re.escape(secret), redact.MASK, error.reason, flags=re.IGNORECASE)
    error.args = (error.reason,)
