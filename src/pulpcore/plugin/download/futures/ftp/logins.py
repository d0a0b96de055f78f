"""The logins that an FTP server has accepted."""

from __future__ import annotations

import weakref

from ..context import Context

Login = tuple[str, str]
"""The user and the password."""


class Logins:
    """The logins to one server: those in progress, and those that the server has accepted.

    Some servers refuse a surplus connection with the reply for a wrong password. A login that was
    accepted before shows which of the two it is.

    It takes no lock, because a signal handler could find it held. It uses only atomic operations of
    its dicts.
    """

    def __init__(self) -> None:
        """Create it without logins."""
        # The logins in progress. The keys are weak references: if a signal handler raises before
        # end() is called, the entry counts no longer once the connection is garbage-collected.
        self._trying: dict[weakref.ref[object], Login] = {}
        self._right: dict[Login, None] = {}

    @classmethod
    def of(cls, context: Context, host: str, port: int) -> Logins:
        """Return the logins to a server, which all users of a context share.

        Args:
            context: The context.
            host: The host.
            port: The port.
        """
        found: Logins = context.cache.setdefault(("ftp logins", host, port), cls())
        return found

    def begin(self, connection: object, login: Login) -> None:
        """Record the start of a login.

        Args:
            connection: The connection.
            login: The login.
        """
        self._trying[weakref.ref(connection)] = login

    def end(self, connection: object, is_right: bool) -> None:
        """Record the end of a login.

        Args:
            connection: The connection.
            is_right: Whether the server accepted the login.
        """
        login = self._trying.pop(weakref.ref(connection))
        if is_right:
            self._right[login] = None

    def is_right(self, login: Login) -> bool:
        """Return whether the server has accepted a login before.

        Args:
            login: The login.
        """
        return login in self._right

    def may_be_right(self, login: Login, connection: object) -> bool:
        """Return whether another connection is trying a login, so that it may be accepted yet.

        Args:
            login: The login.
            connection: The connection to leave out.
        """
        trying = self._trying.copy()
        return any(
            each == login and ref() not in (None, connection) for ref, each in trying.items()
        )
