"""Which logins an FTP server has taken."""

from __future__ import annotations

import weakref

from ..context import Context

Login = tuple[str, str]
"""The user and the password."""


class Logins:
    """The logins of a server that were tried, and those that were right.

    Some servers refuse a connection too many with the words for a wrong password.

    It takes no lock, so that a signal handler can't find one held: it does nothing with its dicts
    that isn't one atomic operation.
    """

    def __init__(self) -> None:
        """Make one that knows no login."""
        # From each connection that is logging in. A signal may come before it can be said that one
        # has ended: then it is gone by itself.
        self._trying: dict[weakref.ref[object], Login] = {}
        self._right: dict[Login, None] = {}

    @classmethod
    def of(cls, context: Context, host: str, port: int) -> Logins:
        """Return what those who share a context know of a server.

        Args:
            context: The context.
            host: The host.
            port: The port.
        """
        found: Logins = context.cache.setdefault(("ftp logins", host, port), cls())
        return found

    def begin(self, connection: object, login: Login) -> None:
        """Note that a login is tried.

        Args:
            connection: The connection.
            login: The login.
        """
        self._trying[weakref.ref(connection)] = login

    def end(self, connection: object, is_right: bool) -> None:
        """Note what came of it.

        Args:
            connection: The connection.
            is_right: The server has taken the login.
        """
        login = self._trying.pop(weakref.ref(connection))
        if is_right:
            self._right[login] = None

    def is_right(self, login: Login) -> bool:
        """Return whether the server has taken a login.

        Args:
            login: The login.
        """
        return login in self._right

    def may_be_right(self, login: Login, connection: object) -> bool:
        """Return whether another connection is just trying a login.

        Args:
            login: The login.
            connection: The connection that asks.
        """
        trying = self._trying.copy()
        return any(
            each == login and ref() not in (None, connection) for ref, each in trying.items()
        )
