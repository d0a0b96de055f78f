"""Tests of how signals stop the program."""

import os
import signal

import pytest

from pulpcore.plugin.download.futures.cli.signals import STOP, Interrupted, stopping


@pytest.mark.usefixtures("from_terminal")
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_stop(number, status):
    """The first signal raises an error that names it and has the shell's usual status.

    Further signals are ignored.
    """
    before = [signal.getsignal(n) for n in STOP]
    with stopping():
        with pytest.raises(Interrupted) as caught:
            os.kill(os.getpid(), number)
        for again in STOP:
            os.kill(os.getpid(), again)
    assert caught.value.status == status
    assert str(caught.value) == number.name
    assert [signal.getsignal(n) for n in STOP] == before


def test_nohup():
    """A signal that was ignored at the start, as by nohup, stays ignored.

    SIGINT is the exception.
    """
    before = {n: signal.signal(n, signal.SIG_IGN) for n in STOP}
    try:
        with stopping():
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(Interrupted):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
