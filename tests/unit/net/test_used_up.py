"""What ran out on this machine is told so, and not as a failure of the host."""

import errno

import pytest

from pulpcore.plugin.download.futures.net.used_up import from_used_up


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
    """It is local, and may be there again when other downloads have ended."""
    failure = from_used_up(OSError(number, "text of the system"))
    assert failure is not None
    assert failure.reason.startswith(words)
    assert failure.local
    assert failure.transient


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "no"), OSError("odd"), ValueError()])
def test_other_errors(error: Exception) -> None:
    """Anything else is none of it."""
    assert from_used_up(error) is None
