"""What may be shown of a value that the user gave or that a manifest has."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .. import redact

_CREDENTIALS = re.compile(r"[^/\s:]+:[^/\s]*@")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def is_url(value: str) -> bool:
    """Whether a text that should be a path is a URL; also one whose ``//`` became a ``/``.

    Args:
        value: The text.
    """
    return _URL.match(value) is not None


def value(text: str) -> str:
    """Redact a value, which may be a URL or have one in it.

    Args:
        text: The value.
    """
    if _URL.search(text) or _CREDENTIALS.match(text):
        return redact.text(redact.url(text))
    return redact.text(text)


def path(text: str) -> str:
    """Redact a path. Only one that has a URL in it is changed: a path may have a ``?``.

    Args:
        text: The path.
    """
    return value(text) if _URL.search(text) else text


def message(text: str, values: Iterable[str]) -> str:
    """Redact the values in a message, and leave the words of the message alone.

    Args:
        text: The message.
        values: The values that may be quoted in it.
    """
    for given in values:
        option, _, rest = given.partition("=")
        for part in (given, rest, option):
            redacted = value(part)
            if redacted != part:
                text = text.replace(part, redacted).replace(repr(part)[1:-1], redacted)
    return text
