"""Tests of errors about exhausted resources of this machine, which don't count against the host."""

import errno
from typing import Any

import pytest

from pulpcore.plugin.download.futures import DownloadFailed
from pulpcore.plugin.download.futures.net.used_up import from_used_up, used_up


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EMFILE, "this process has no file descriptors left"),
        (errno.ENFILE, "this machine has no file descriptors left"),
        (errno.ENOMEM, "this machine has no memory left"),
        (errno.ENOBUFS, "this machine has no memory left"),
        (errno.EADDRNOTAVAIL, "this machine has no free port"),
    ],
)
def test_used_up(number: int, words: str) -> None:
    """An exhausted resource of this machine is a local, transient error."""
    failure = from_used_up(OSError(number, "text of the system"))
    assert failure is not None
    assert failure.reason.startswith(words)
    assert failure.local
    assert failure.transient


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "no"), OSError("odd"), ValueError()])
def test_other_errors(error: Exception) -> None:
    """Other errors of the system aren't reported as exhausted resources."""
    assert from_used_up(error) is None


def chained(cause: BaseException) -> DownloadFailed:
    """Make an error of ours with a cause."""
    error = DownloadFailed("why")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EMFILE, "x"), "no file descriptors"),
        (chained(OSError(errno.ENOMEM, "x")), "no memory"),
        (chained(LookupError(OSError(errno.EADDRNOTAVAIL, "x"))), "no free port"),
    ],
)
def test_behind_what_libraries_made_of_it(error: Exception, words: str) -> None:
    """An exhausted resource is found behind the exceptions of other libraries."""
    found = used_up(error)
    assert found is not None
    assert words in found


def test_in_a_reason() -> None:
    """An exhausted resource is found in the `reason` of urllib3's exceptions."""
    error: Any = LookupError()
    error.reason = OSError(errno.ENFILE, "x")
    assert "machine" in str(used_up(error))


def test_nothing_ran_out() -> None:
    """Other failures aren't exhausted resources, even if two errors cause each other."""
    one, other = chained(ConnectionRefusedError(errno.ECONNREFUSED, "x")), OSError("y")
    other.__cause__ = one
    one.args = (other,)
    assert used_up(one) is None
