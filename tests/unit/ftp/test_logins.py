"""What is known of the logins of a server that says the same of too many and of wrong ones."""

from pulpcore.plugin.download.futures.context import Context
from pulpcore.plugin.download.futures.ftp.logins import Logins

LOGIN = ("me", "word")


class Connection:
    """A connection, as far as it matters here."""


def test_shared() -> None:
    """Downloads that share a context share a server's state, by host and port."""
    context = Context()
    logins = Logins.of(context, "h", 21)
    assert Logins.of(context, "h", 21) is logins
    assert Logins.of(context, "h", 22) is not logins
    assert Logins.of(Context(), "h", 21) is not logins


def test_right() -> None:
    """A login that succeeded once counts as right. A refused one stays unknown."""
    logins, one, other = Logins(), Connection(), Connection()
    logins.begin(one, LOGIN)
    assert not logins.is_right(LOGIN)
    logins.end(one, is_right=True)
    logins.begin(other, ("me", "wrong"))
    logins.end(other, is_right=False)
    assert logins.is_right(LOGIN)
    assert not logins.is_right(("me", "wrong"))


def test_may_be_right() -> None:
    """A login may be right while another connection is trying it."""
    logins, one, other = Logins(), Connection(), Connection()
    logins.begin(one, LOGIN)
    assert not logins.may_be_right(LOGIN, one)
    assert logins.may_be_right(LOGIN, other)
    assert not logins.may_be_right(("me", "wrong"), other)
    logins.end(one, is_right=False)
    assert not logins.may_be_right(LOGIN, other)


def test_forgotten() -> None:
    """A login whose connection is gone doesn't count as in progress."""
    logins, connections = Logins(), [Connection()]
    logins.begin(connections[0], LOGIN)
    connections.clear()
    assert not logins.may_be_right(LOGIN, Connection())
