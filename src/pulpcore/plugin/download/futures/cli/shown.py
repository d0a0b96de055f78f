"""Redacts values of the command line and of manifests before they are shown."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .. import redact

_CREDENTIALS = re.compile(r"[^/\s:]+:[^/\s]*@")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def is_url(value: str) -> bool:
    """Return whether a text that should be a path is a URL, even if its ``//`` became a ``/``.

    Args:
        value: The text.
    """
    return _URL.match(value) is not None


def value(text: str) -> str:
    """Redact a value that may be a URL or contain one.

    Args:
        text: The value.
    """
    if _URL.search(text) or _CREDENTIALS.match(text):
        return redact.text(redact.url(text))
    return redact.text(text)


def path(text: str) -> str:
    """Redact a path if it contains a URL. Other paths stay as they are: they may have a ``?``.

    Args:
        text: The path.
    """
    return value(text) if _URL.search(text) else text


def message(text: str, values: Iterable[str]) -> str:
    """Redact the quoted values in a message, and nothing else of it.

    Args:
        text: The message.
        values: The values that the message may quote.
    """
    for given in values:
        option, _, rest = given.partition("=")
        for part in (given, rest, option):
            redacted = value(part)
            if redacted != part:
                text = text.replace(part, redacted).replace(repr(part)[1:-1], redacted)
    return text


_OPTIONS = {
    "give them in proxy_url": "give them in --proxy",
    "than those in proxy_url": "than those in --proxy",
    "proxy_url": "--proxy",
    "give a user and a password": "give --user",
    "add a digest validation, or allow insecure_redirects": "give its digest, as by --sha256",
    "say its size by a SizeValidation, or set expansion_max": "give its size, as by --size",
    "; give a path": "; give it by -o, or by out= in a list",
    "as the setting ssl.validation=False says": "as --insecure says",
    "within the total limit": "within --total-timeout",
    "can't write to Writer:": "can't write to stdout:",
}


def hint(text: str) -> str:
    """Have a hint of the library name the option of the program, and not the attribute.

    Args:
        text: The message of an error.
    """
    for attribute, option in _OPTIONS.items():
        text = text.replace(attribute, option)
    return text


def excerpt(text: str) -> str:
    """Quote the beginning of a text that may contain a URL.

    Args:
        text: The text.
    """
    text = value(text)
    return repr(text if len(text) <= 80 else text[:77] + "...")
