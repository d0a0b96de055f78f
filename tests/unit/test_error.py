"""Tests of the errors: hierarchy, messages, redaction and pickling."""

import copy
import pickle

import pytest

from pulpcore.plugin.download.futures import BufferWriter, Download
from pulpcore.plugin.download.futures import error as module
from pulpcore.plugin.download.futures.error import (
    DigestMismatch,
    DownloadError,
    DownloadFailed,
    Facts,
    MismatchError,
    NotAuthorized,
    NotFound,
    SizeMismatch,
    ValidationError,
)

SECRET_URL = "https://bob:hunter2@example.org/a/b?token=t0ps3cret&flag#fr4gment"
SHOWN_URL = "https://example.org/a/b?token=***&***"
SECRETS = ("bob", "hunter2", "t0ps3cret", "fr4gment")
TREE = {
    DownloadError: Exception,
    DownloadFailed: DownloadError,
    NotFound: DownloadFailed,
    NotAuthorized: DownloadFailed,
    ValidationError: DownloadError,
    MismatchError: ValidationError,
    SizeMismatch: MismatchError,
    DigestMismatch: MismatchError,
}
PLAIN = [cls for cls in TREE if not issubclass(cls, MismatchError)]
MISMATCHES = [cls for cls in TREE if issubclass(cls, MismatchError)]


class Nothing(Download):
    def _send(self):
        pass


class Quota(DownloadFailed):
    """A plugin's error with constructor arguments of its own."""

    def __init__(self, used, limit, *, unit):
        super().__init__(None, f"used {used} of {limit} {unit}")
        self.used = used
        self.unit = unit


class Picky(DownloadFailed):
    """A plugin's error whose __new__ has arguments of its own."""

    def __new__(cls, code, *rest):
        """Take a code."""
        return super().__new__(cls, code, *rest)

    def __init__(self, code):
        super().__init__(f"code {code}")
        self.code = code


class LatePicky(NotFound):
    """A plugin's error whose constructor never calls ours."""

    def __init__(self, code):
        self.code = code


@pytest.fixture
def download():
    """Make a download whose URL has secrets."""
    return Nothing(SECRET_URL, BufferWriter())


@pytest.mark.parametrize(("cls", "base"), TREE.items())
def test_tree(cls, base):
    """Each error class has the documented base class."""
    assert cls.__bases__ == (base,)


@pytest.mark.parametrize("cls", PLAIN)
def test_made_of_download_and_reason(cls, download):
    """An error takes an optional download and reason. A single str is the reason."""
    error = cls(download, "why")
    assert (error.download, error.reason) == (download, "why")
    assert (cls().download, cls().reason) == (None, "")
    assert (cls("why").download, cls("why").reason) == (None, "why")
    assert (cls(reason="why").download, cls(download=download).reason) == (None, "")
    assert cls("first", "second").reason == "second"


@pytest.mark.parametrize("cls", MISMATCHES)
def test_mismatch(cls, download):
    """A mismatch error has `expected` and `actual`, from which it makes its reason."""
    error = cls(1, 2, download, "why")
    assert (error.expected, error.actual) == (1, 2)
    assert (error.download, error.reason) == (download, "why")
    assert cls("ab", "cd").reason == "expected ab, but got cd"


@pytest.mark.parametrize("cls", PLAIN)
def test_text_without_a_download(cls):
    """An error without a download shows its reason, or else its kind."""
    assert str(cls("why")) == "why"
    assert str(cls()) == cls.__name__
    assert repr(cls("why")) == f"{cls.__name__}('why')"


def test_text_with_a_download(download):
    """An error with a download shows its URL without secrets, and the reason."""
    assert str(DownloadFailed(download, "why")) == f"{SHOWN_URL}: why"


def test_text_with_facts(download):
    """An error shows URL, reason, received of expected, status, attempt and time in one line."""
    error = DownloadFailed(download, "why\n not")
    error.facts = Facts(SHOWN_URL, 10, 20, 503, 2, 1.25)
    assert str(error) == (
        f"{SHOWN_URL}: why not (received 10 of 20 bytes, status 503, attempt 2, 1.2 s)"
    )


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        (Facts("u"), "received 0 bytes, 0.0 s"),
        (Facts("u", 1, 0), "received 1 of 0 bytes, 0.0 s"),
        (Facts("u", attempt=3), "received 0 bytes, attempt 3, 0.0 s"),
    ],
)
def test_facts_that_are_not_known(facts, shown):
    """The text of an error omits facts that aren't known."""
    assert str(facts) == shown


@pytest.mark.parametrize("show", [str, repr, "{}".format])
@pytest.mark.parametrize("told", [True, False])
def test_no_secret(show, told, download):
    """An error shows no secret of the URL, neither by its download nor by its reason."""
    error = DownloadFailed(download, f"tried {SECRET_URL}, got a redirect to /x?key=t0ps3cret")
    if told:
        error.facts = Facts(str(download))
    shown = show(error)
    assert not [secret for secret in SECRETS if secret in shown]
    assert "token" in shown


def test_a_reason_cannot_forge_a_line():
    """Line breaks in a reason, such as a server's text, are escaped in the error."""
    assert "\n" not in str(DownloadFailed("one\r\n2026-01-01 INFO two"))


def test_defaults():
    """By default an error isn't transient and has no time for a retry."""
    error = DownloadFailed("why")
    assert (error.transient, error.retry_after, error.facts) == (False, None, None)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("cls", TREE)
def test_pickle(cls, protocol, download):
    """Each error can be pickled. It loses its download but keeps its text with the URL."""
    error = cls(1, 2, download) if cls in MISMATCHES else cls(download, "why")
    error.retry_after = 3.5
    twin = pickle.loads(pickle.dumps(error, protocol))
    assert type(twin) is cls
    assert twin.download is None
    assert (twin.reason, twin.args, twin.retry_after) == (error.reason, error.args, 3.5)
    assert str(twin).startswith(f"{SHOWN_URL}: {error.reason} ")
    if cls in MISMATCHES:
        assert (twin.expected, twin.actual) == (1, 2)


@pytest.mark.parametrize(
    ("error", "attributes"),
    [
        (Quota(3, 4, unit="GB"), {"used": 3, "unit": "GB", "reason": "used 3 of 4 GB"}),
        (Picky(7), {"code": 7, "reason": "code 7"}),
        (LatePicky(7), {"code": 7, "args": (7,)}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_pickle_of_subclasses(error, attributes):
    """A plugin's error can be pickled and copied, whatever its constructor takes."""
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert {name: getattr(twin, name) for name in attributes} == attributes


def test_pickle_has_no_secret(download):
    """The pickle of an error contains no secret of the URL."""
    pickled = pickle.dumps(DownloadFailed(download, "why"))
    assert not [secret for secret in SECRETS if secret.encode() in pickled]


def test_pickle_keeps_facts(download):
    """The facts of an error survive pickling."""
    error = DownloadFailed(download, "why")
    error.facts = Facts(SHOWN_URL, 10, 20, 503, 2, 1.25)
    assert pickle.loads(pickle.dumps(error)).facts == error.facts
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_the_docstring_draws_the_tree():
    """The module's docstring lists every error class."""
    assert not [cls for cls in TREE if cls is not Exception and cls.__name__ not in module.__doc__]


def test_validation_that_compares_nothing():
    """Each ValidationError has `expected` and `actual`; they are None if nothing was compared."""
    error = ValidationError(reason="it has no signature")
    assert (error.expected, error.actual) == (None, None)
    mismatch = SizeMismatch(1, 2)
    assert (mismatch.expected, mismatch.actual) == (1, 2)
