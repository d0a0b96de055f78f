"""What an FTP URL says: where the file is, and who logs in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from ..net import url as urls
from ..settings import User

_SCHEMES = ("ftp", "ftps")
# RFC 1738 section 3.2.2. With an encoded ';' it is a part of the name.
_TYPE_CODE = re.compile(r";type=[aid]\Z", re.IGNORECASE)

ENCODING = "utf-8"
"""How text becomes bytes. Bytes that are no UTF-8 are surrogates in a text (PEP 383)."""


class Location(NamedTuple):
    """Where a file is, and who logs in to get it.

    Attributes:
        host (str): The host, an IPv6 address without brackets.
        port (int): The port.
        is_implicit (bool): TLS comes before the first word (``ftps``).
        path (str): The path, decoded: relative to the folder that the server logs the user into,
            unless it begins with a slash (RFC 1738 section 3.2.2).
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
        """Read a URL.

        Args:
            text: The URL.
            user: The user; one with a name wins over userinfo in the URL.

        Raises:
            ValueError: The URL isn't valid, or it or the user has characters that FTP can't send.
        """
        try:
            url = urls.parse(text, _SCHEMES)
        except ValueError as error:
            raise ValueError(f"url: must be ftp://host/path or ftps://host/path: {error}") from None
        # '?' has no meaning in FTP: with what follows it belongs to the name.
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
        """What must not be shown, whatever repeats it.

        Args:
            user: The user in the settings.
        """
        yield from filter(None, (user.password, self.url.password))
        # Without a password a name is often a token. A short one is none, and a part of many words.
        names = [self.url.user] if user.password else [self.url.user, user.name]
        yield from (name for name in names if name and len(name) > 3)


def without_type_code(path: str) -> str:
    """Return the path of an FTP URL, or its end, without the type code that it may end with.

    Args:
        path: The path, encoded.
    """
    return _TYPE_CODE.sub("", path)


def _can_be_sent(text: str) -> bool:
    """Whether a text is bytes, and has nothing that ends a line of the protocol."""
    try:
        text.encode(ENCODING, "surrogateescape")
    except UnicodeError:
        return False
    return not any(character in text for character in "\r\n\0")
