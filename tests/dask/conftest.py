"""Fixtures of the tests with Dask."""

import threading

import pytest
from servers.leaks import threads_left


@pytest.fixture(autouse=True)
def nothing_left():
    """Fail a test that leaves a thread alive, unless it is one that Dask keeps for ever."""
    before = threading.enumerate()
    yield
    own = [thread for thread in threading.enumerate() if not thread.name.startswith("Dask")]
    assert not threads_left([*before, *(set(threading.enumerate()) - set(own))])
