"""Parses FTP URLs: where the file is, and which user logs in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from ..net import url as urls
from ..settings import User

_SCHEMES = ("ftp", "ftps")
# RFC 1738 section 3.2.2. A ';' that is percent-encoded belongs to the file name.
_TYPE_CODE = re.compile(r";type=[aid]\Z", re.IGNORECASE)

ENCODING = "utf-8"
"""The encoding of text. Bytes that aren't valid UTF-8 become surrogates (PEP 383)."""


class Location(NamedTuple):
    """The location of a file, and the user to log in as.

    Attributes:
        host (str): The host, an IPv6 address without brackets.
        port (int): The port.
        is_implicit (bool): TLS starts with the connection (``ftps``).
        path (str): The path, decoded. It is relative to the user's home directory, unless it
            begins with a slash (RFC 1738 section 3.2.2).
        user (str): The name of the user.
        password (str): The password.
        url (URL): The URL.
    """

    host: str
    port: int
    is_implicit: bool
    path: str
    user: str
    password: str
    url: urls.URL

    @classmethod
    def of(cls, text: str, user: User) -> Location:
        """Parse a URL.

        Args:
            text: The URL.
            user: The user in the settings. If it has a name, it overrides userinfo in the URL.

        Raises:
            ValueError: The URL is invalid, or it or the user has characters that FTP can't send.
        """
        try:
            url = urls.parse(text, _SCHEMES)
        except ValueError as error:
            raise ValueError(f"url: must be ftp://host/path or ftps://host/path: {error}") from None
        # FTP URLs have no query: a '?' and what follows belong to the file name.
        path = unquote_to_bytes(without_type_code(url.target)).decode(ENCODING, "surrogateescape")
        if not all(map(_can_be_sent, (path, url.user or "", url.password or ""))):
            raise ValueError("url: it has characters that FTP can't send")
        login = "anonymous", "anonymous@"
        if user.name is not None:
            login = user.name, user.password or ""
        elif url.user:
            login = url.user, url.password or ""
        if not all(map(_can_be_sent, login)):
            raise ValueError("user: it has characters that FTP can't send")
        return cls(url.host, url.port, url.scheme == "ftps", path.removeprefix("/"), *login, url)

    def secrets(self, user: User) -> Iterator[str]:
        """Yield the texts that must not appear in messages.

        Args:
            user: The user in the settings.
        """
        yield from filter(None, (user.password, self.url.password))
        # A name without a password is often a token. A name of up to 3 characters can't be one, and
        # would be found inside many words.
        names = [self.url.user] if user.password else [self.url.user, user.name]
        yield from (name for name in names if name and len(name) > 3)


def without_type_code(path: str) -> str:
    """Remove the type code from the end of an FTP path.

    Args:
        path: The path, percent-encoded, or only its end.
    """
    return _TYPE_CODE.sub("", path)


def _can_be_sent(text: str) -> bool:
    """Return whether a text can be encoded, and has no character that ends an FTP command."""
    try:
        text.encode(ENCODING, "surrogateescape")
    except UnicodeError:
        return False
    return not any(character in text for character in "\r\n\0")
