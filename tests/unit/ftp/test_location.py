"""Tests of the parser for FTP URLs."""

import pytest

from pulpcore.plugin.download.futures import User
from pulpcore.plugin.download.futures.ftp.location import Location

NOBODY = User()


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("ftp://h/a/b", "a/b"),
        ("ftp://h", ""),
        ("ftp://h/%2Fa", "/a"),
        ("ftp://h/a?b=c", "a?b=c"),
        ("ftp://h/a#b", "a"),
        ("ftp://h/100%", "100%"),
        ("ftp://h/%E9", "\udce9"),
        ("ftp://h/ü", "ü"),
        ("ftp://h/a;type=i", "a"),
        ("ftp://h/a;TYPE=D", "a"),
        ("ftp://h/a%3Btype=i", "a;type=i"),
        ("ftp://h/a;type=i/b", "a;type=i/b"),
        ("ftp://h/a;type=e", "a;type=e"),
        ("ftp://h/a;type=i\u0660", "a;type=i\u0660"),
    ],
)
def test_path(url: str, path: str) -> None:
    """The FTP path is the decoded bytes of the URL, without the type code of RFC 1738."""
    assert Location.of(url, NOBODY).path == path


def test_place() -> None:
    """An FTP URL gives host and port, with the default port of its scheme.

    Only ftps has TLS from the first byte.
    """
    assert Location.of("FTP://Host/", NOBODY)[:3] == ("host", 21, False)
    assert Location.of("ftps://[::1]/", NOBODY)[:3] == ("::1", 990, True)
    assert Location.of("ftps://h:2121/", NOBODY)[:3] == ("h", 2121, True)


@pytest.mark.parametrize(
    ("url", "user", "login"),
    [
        ("ftp://h/", NOBODY, ("anonymous", "anonymous@")),
        ("ftp://me:p%40ss@h/", NOBODY, ("me", "p@ss")),
        ("ftp://me@h/", NOBODY, ("me", "")),
        ("ftp://me:secret@h/", User("you"), ("you", "")),
        ("ftp://me:secret@h/", User("you", "word"), ("you", "word")),
    ],
)
def test_login(url: str, user: User, login: tuple[str, str]) -> None:
    """Credentials in the settings win over those in the URL.

    Without either the login is anonymous.
    """
    location = Location.of(url, user)
    assert (location.user, location.password) == login


def test_secrets() -> None:
    """Redaction covers FTP passwords, and user names that may be tokens unless they are short."""
    location = Location.of("ftp://token-of-mine:pass%2Fword@h/", NOBODY)
    assert set(location.secrets(NOBODY)) == {"token-of-mine", "pass/word"}
    assert set(location.secrets(User("somebody"))) == {"token-of-mine", "pass/word", "somebody"}
    assert "somebody" not in location.secrets(User("somebody", "word"))
    assert list(Location.of("ftp://me@h/", NOBODY).secrets(NOBODY)) == []


@pytest.mark.parametrize("encoded", ["%0d", "%0A", "%00"])
@pytest.mark.parametrize("url", ["ftp://h/a{}", "ftp://me{}@h/a", "ftp://me:word{}@h/a"])
def test_line_ends(url: str, encoded: str) -> None:
    """A path or login with a line break is refused, because it would end the FTP command."""
    with pytest.raises(ValueError, match="url: it has characters that FTP can't send"):
        Location.of(url.format(encoded), NOBODY)


@pytest.mark.parametrize("text", ["a\nb", "\ud800"])
def test_line_end_in_the_settings(text: str) -> None:
    """An error about invalid FTP credentials names the setting and hides its value."""
    with pytest.raises(ValueError, match=r"^user: it has characters that FTP can't send$"):
        Location.of("ftp://h/a", User("me", text))
