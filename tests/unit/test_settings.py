"""Tests of settings: comparison by value, validation, and a repr without secrets."""

import copy
import traceback
from collections import deque

import pytest
from requests.structures import CaseInsensitiveDict

from pulpcore.plugin.download.futures import SSL, Settings, Timeout, User
from pulpcore.plugin.download.futures.settings import copied

LIST = "<list>"
VERIFIED = "validation=True)"
PEM = "-----BEGIN PRIVATE KEY-----\nc0ntent\n-----END PRIVATE KEY-----\n"


@pytest.fixture
def pem(tmp_path):
    """Return the path of a PEM file."""
    path = tmp_path / "some.pem"
    path.write_text(PEM)
    return str(path)


def test_defaults():
    """Each setting can be made without arguments.

    Time-outs are 10 s to connect and 30 s to read.
    """
    assert vars(SSL()) == {
        "ca_certificate": None,
        "client_certificate": None,
        "client_key": None,
        "validation": True,
        "client_key_password": None,
        "context": None,
    }
    assert vars(User()) == {"name": None, "password": None}
    timeout = Timeout()
    assert (timeout.connect, timeout.read) == (10, 30)


def test_positions():
    """The arguments of settings may be positional, in the documented order."""
    assert SSL("a", "b", "c", False) == SSL(
        ca_certificate="a", client_certificate="b", client_key="c", validation=False
    )
    assert User("a", "b") == User(name="a", password="b")
    assert Timeout(1, 2) == Timeout(connect=1, read=2)


@pytest.mark.parametrize("cls", [SSL, User, Timeout])
def test_they_are_values(cls):
    """Settings are equal by content, can be copied, and differ from other classes."""
    assert isinstance(cls(), Settings)
    assert cls() == cls() == copy.copy(cls())
    assert cls("1") != cls()
    assert cls() != Settings()
    cls().validate()


@pytest.mark.parametrize("cls", [SSL, User, Timeout])
def test_nothing_is_checked_when_made(cls):
    """An invalid setting may be made and changed; only validate() raises."""
    setting = cls("a:b\0")
    for name in vars(setting):
        setattr(setting, name, object())
    with pytest.raises(ValueError, match=next(iter(vars(setting)))):
        setting.validate()


def test_ssl(pem):
    """TLS settings accept readable paths, PEM text and None."""
    for setting in (
        SSL(pem, pem, pem),
        SSL(PEM, PEM, PEM),
        SSL(client_certificate=pem),
        SSL("", "", "", validation=False),
        SSL(SSL.SYSTEM, PEM, PEM, client_key_password="p4ss"),
    ):
        setting.validate()


@pytest.mark.parametrize("attribute", ["ca_certificate", "client_certificate", "client_key"])
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("{}/missing.pem", "No such file"),
        ("{}", "directory"),
        ("{}/file/a.pem", "Not a directory"),
        ("a\0b", "not a path"),
        (7, "not a path"),
    ],
)
def test_ssl_that_cannot_be_read(attribute, path, reason, tmp_path, pem):
    """The error about an unreadable file in the TLS settings names the attribute."""
    (tmp_path / "file").touch()
    setting = SSL(client_certificate=pem)
    setattr(setting, attribute, path.format(tmp_path) if isinstance(path, str) else path)
    with pytest.raises(ValueError, match=f"^{attribute}: .*{reason}"):
        setting.validate()


@pytest.mark.parametrize("text", ["s3cret\nAQAB", "s3cret" * 50])
def test_ssl_of_what_is_no_path(text):
    """PEM text without its first line isn't shown as an unreadable path."""
    with pytest.raises(ValueError, match=r"^client_key: can't read <text>") as caught:
        SSL("", "", text).validate()
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_ssl_key_alone(pem):
    """TLS settings with a key but no certificate are invalid."""
    with pytest.raises(ValueError, match=r"^client_key: .*client_certificate"):
        SSL(client_key=pem).validate()


def test_system_is_no_path():
    """SSL.SYSTEM is valid for the CA only."""
    with pytest.raises(ValueError, match=r"^client_certificate: can't read"):
        SSL(SSL.SYSTEM, SSL.SYSTEM).validate()


@pytest.mark.parametrize("password", [b"p4ss", 1234, ["p4ss"]])
def test_ssl_password_that_is_no_text(pem, password):
    """The error about a key password of a wrong type names the attribute, not the value."""
    with pytest.raises(ValueError, match=r"^client_key_password: must be a str") as caught:
        SSL(None, pem, client_key_password=password).validate()
    assert str(password) not in str(caught.value)
    assert "p4ss" not in str(caught.value)


@pytest.mark.parametrize("name", ["bob", "", None, "bøb"])
@pytest.mark.parametrize("password", ["a:b", "", None, "π"])
def test_user(name, password):
    """User settings accept any name without a colon and any password."""
    User(name, password).validate()


@pytest.mark.parametrize(
    ("user", "attribute"),
    [
        (User("bob:x", "p"), "name"),
        (User(b"bob", "p"), "name"),
        (User("bob", b"p4ss"), "password"),
        (User("bob", 1234), "password"),
    ],
)
def test_user_that_cannot_work(user, attribute):
    """The error about invalid user settings names the attribute and shows no password."""
    with pytest.raises(ValueError, match=f"^{attribute}: ") as caught:
        user.validate()
    assert "p4ss" not in str(caught.value)
    assert "1234" not in str(caught.value)


@pytest.mark.parametrize("seconds", [None, 1, 0.001, 86400])
def test_timeout(seconds):
    """Time-outs accept numbers above 0, and None for no limit."""
    Timeout(seconds, seconds).validate()


@pytest.mark.parametrize("attribute", ["connect", "read"])
@pytest.mark.parametrize(
    "seconds", [0, -1, True, "10", (1, 2), float("nan"), float("inf"), 1e300], ids=repr
)
def test_timeout_that_cannot_work(attribute, seconds):
    """The error about an invalid time-out names the attribute.

    A value that a socket can't wait for is invalid, too.
    """
    setting = Timeout()
    setattr(setting, attribute, seconds)
    with pytest.raises(ValueError, match=f"^{attribute}: "):
        setting.validate()


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        (User("bob", "hunter2"), "User(name='bob')"),
        (User("bob", "x"), "User(name='bob')"),
        (User("t0ken"), "User(...)"),
        (User("t0ken", ""), "User(...)"),
        (User(), "User(...)"),
        (
            SSL("/ca", PEM),
            "SSL(ca_certificate='/ca', client_certificate=<PEM>, client_key=None, validation=True)",
        ),
        (
            SSL("", "MIIB\nAQAB", "M" * 256),
            "SSL(ca_certificate='', client_certificate=<text>, client_key=<text>, validation=True)",
        ),
        (
            SSL("/a", "M", f"{'MIIB+/' * 8}==\n"),
            "SSL(ca_certificate='/a', client_certificate='M', client_key=<text>, validation=True)",
        ),
        (
            SSL("", "/" + "M" * 31, "MIIB" * 16),
            "SSL(ca_certificate='', client_certificate=<text>, client_key=<text>, validation=True)",
        ),
        (
            SSL("/a", [PEM], PEM.encode()),  # type: ignore[arg-type]
            f"SSL(ca_certificate='/a', client_certificate={LIST}, client_key=<bytes>, {VERIFIED}",
        ),
        (
            SSL("/ca", client_key_password="p4ss"),
            "SSL(ca_certificate='/ca', client_certificate=None, client_key=None, validation=True)",
        ),
        (
            SSL(None, None, PEM, False),
            "SSL(ca_certificate=None, client_certificate=None, client_key=<PEM>, validation=False)",
        ),
    ],
)
def test_no_secret(setting, shown):
    """The repr of settings shows no password or its length, no PEM text and no user name."""
    shown = shown.replace("<PEM>", "<PEM text>")
    assert (str(setting), repr(setting), f"{setting}") == (shown, shown, shown)


def test_timeout_text():
    """The repr of a time-out shows its values."""
    assert repr(Timeout(1, None)).startswith("Timeout(connect=1, read=None")


@pytest.mark.parametrize(
    "value",
    [
        [1],
        {"a": 1},
        {1},
        bytearray(b"1"),
        deque([1]),
        CaseInsensitiveDict(A="1"),
        Timeout(1),
        User("me"),
        SSL("/ca"),
    ],
    ids=repr,
)
def test_copied(value):
    """Mutable settings are copied: changing the copy leaves the original unchanged."""
    before = repr(value)
    twin = copied(value)
    assert type(twin) is type(value)
    assert twin == value
    if isinstance(value, Settings):
        for name in vars(twin):
            setattr(twin, name, "other")
    else:
        twin.clear()
    assert repr(value) == before


@pytest.mark.parametrize("value", [1, "a", (1,), None, frozenset({1}), len], ids=repr)
def test_not_copied(value):
    """Settings that are immutable or shared on purpose aren't copied."""
    assert copied(value) is value
