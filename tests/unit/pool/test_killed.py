"""Tests of what makes a ProcessPoolExecutor end after one of its processes was killed."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from unittest.mock import Mock

import pytest

from pulpcore.plugin.download.futures.pool import killed

SECONDS = 10


@pytest.fixture
def pipe():
    """Return both ends of a pipe, as a pool's queue has one."""
    reader, writer = Pipe(duplex=False)
    yield reader, writer
    reader.close()
    writer.close()


def test_writer_gets_an_error(pipe):
    """A thread that writes to a full pipe gets an error."""
    reader, writer = pipe
    errors = []

    def write():
        try:
            writer.send_bytes(bytes(1 << 20))
        except BrokenPipeError as error:
            errors.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    killed._close_when_full(reader, writer, thread)
    thread.join(SECONDS)
    assert len(errors) == 1


def test_pool_that_ends(pipe):
    """The pipe of a pool that ends by itself stays open."""
    killed._close_when_full(*pipe, Mock(is_alive=Mock(side_effect=[True, False])))
    os.fstat(pipe[0].fileno())


def test_closed_by_the_pool(pipe):
    """If a pool has closed its pipe, nothing is done."""
    pipe[1].close()
    killed._close_when_full(*pipe, Mock(is_alive=Mock(return_value=True)))
    assert not pipe[0].closed


def test_other_executor():
    """An executor that isn't a ProcessPoolExecutor is left unchanged."""
    with ThreadPoolExecutor(1) as executor:
        killed.release(executor)
        assert killed.submit(executor, int).result(SECONDS) == 0
